"""Training: patches and settings in, a run folder out."""
