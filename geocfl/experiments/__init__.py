"""Grids of runs: comparison of losses under class imbalance, and its table."""
