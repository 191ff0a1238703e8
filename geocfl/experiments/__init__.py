"""Grids of trainings: comparison of losses under class imbalance, and its leaderboard."""
