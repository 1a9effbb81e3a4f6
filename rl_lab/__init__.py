"""rl-lab: one lab for learning from reward, run from the command line."""

__version__ = "0.1.0"
