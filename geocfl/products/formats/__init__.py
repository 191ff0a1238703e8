"""File formats: one module per type of file."""
