"""Generators of verifiable reasoning problems, each with a sequential and a structured solution.

Pure Python and seeded: training and test problems can be generated anywhere, from a seed.
"""

from .families import DEPTHS, FAMILIES, WIDTHS, generate, problems
from .problem import ExpressionRule, IntegerRule, Problem, Split, flatten, split_of

__all__ = [
    "DEPTHS",
    "FAMILIES",
    "WIDTHS",
    "ExpressionRule",
    "IntegerRule",
    "Problem",
    "Split",
    "flatten",
    "generate",
    "problems",
    "split_of",
]
