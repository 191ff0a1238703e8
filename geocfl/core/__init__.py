"""What every other room may use: grids, windows, legends, radiometry, files, progress, display."""
