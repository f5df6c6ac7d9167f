"""Generators of verifiable reasoning problems, each with a sequential and a structured solution.

Pure Python and seeded: what a model is trained on and what it is measured on can be made anywhere, from a number.
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
