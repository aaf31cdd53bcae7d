"""Write the reference pages of docs/ from the declarations in the package."""
