"""One module a file type."""
