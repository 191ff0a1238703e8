"""Trials of reliability: commands of geocfl under damaged inputs, faults and kills (`benchmarks/reliability.py`)."""
