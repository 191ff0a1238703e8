"""One module a container of scenes."""
