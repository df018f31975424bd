"""SIRL: safety instincts reinforcement learning (arXiv 2510.01088), as a pure library."""

__version__ = "0.1.0"
