"""Generators of verifiable reasoning problems, each with a sequential and a structured solution.

Pure Python and seeded: training and test problems can be generated anywhere, from a seed.
"""

from .families import CALCULATIONS, DEPTHS, FAMILIES, STEPS, WIDTHS, generate, problems
from .problem import Problem, Split, flatten, split_of
from .rules import ClassesRule, ExpressionRule, IntegerRule, ListRule, NumberRule
from .wording import Part, Style, Wording

__all__ = [
    "CALCULATIONS",
    "DEPTHS",
    "FAMILIES",
    "STEPS",
    "WIDTHS",
    "ClassesRule",
    "ExpressionRule",
    "IntegerRule",
    "ListRule",
    "NumberRule",
    "Part",
    "Problem",
    "Split",
    "Style",
    "Wording",
    "flatten",
    "generate",
    "problems",
    "split_of",
]
