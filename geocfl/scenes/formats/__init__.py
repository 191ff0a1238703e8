"""Formats of scenes: one module per format."""
