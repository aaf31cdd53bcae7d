"""Read an application from a file without code: TOML or a Procfile."""
