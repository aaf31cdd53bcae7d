"""Import an application in a child process, and contain what the import changes."""
