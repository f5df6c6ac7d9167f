"""Generators of verifiable reasoning problems, each with a sequential and a structured solution.

Pure Python and seeded: training and test problems can be generated anywhere, from a seed.
"""

from .dialogues import KINDS, Exchange, dialogues, generate_dialogues
from .families import CALCULATIONS, DEPTHS, FAMILIES, STEPS, WIDTHS, generate, problems
from .problem import Problem, Split, final_answer, flatten, split_of
from .rules import ClassesRule, ExpressionRule, IntegerRule, ListRule, NumberRule, Rule, read_rule, rule_json
from .wording import Part, Style, Wording

__all__ = [
    "CALCULATIONS",
    "DEPTHS",
    "FAMILIES",
    "KINDS",
    "STEPS",
    "WIDTHS",
    "ClassesRule",
    "Exchange",
    "ExpressionRule",
    "IntegerRule",
    "ListRule",
    "NumberRule",
    "Part",
    "Problem",
    "Rule",
    "Split",
    "Style",
    "Wording",
    "dialogues",
    "final_answer",
    "flatten",
    "generate",
    "generate_dialogues",
    "problems",
    "read_rule",
    "rule_json",
    "split_of",
]
