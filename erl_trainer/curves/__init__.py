"""`python -m erl_trainer curves`: a grid of runs, and the paper's figures drawn from it."""

from erl_trainer.curves.command import main

__all__ = ["main"]
