"""The rows of `benchmarks/faults.py`: what is run, what goes wrong, and what must come of it."""
