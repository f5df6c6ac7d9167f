"""Words of written solutions: what a text is about, and which capitals are no names."""

from __future__ import annotations

import re

from .arithmetic import singular


def listed(text: str) -> frozenset[str]:
    """The words of a list."""
    return frozenset(text.split())


_CONTENT = re.compile(r"[A-Za-z]{3,}")

COMMON = listed(
    """
    the and for are was were has have had how many much his her their its them they this that these those will would
    can could with from each per total number amount more less than then there first find now she you all one two
    three four five which when who what does did get gets got into out also since because after before means make
    makes made still only need needs over total altogether times multiply divide add subtract calculate adding
    subtracting multiplying dividing
    """
)
"""Words that do not tell one number from another."""

NO_NAMES = listed(
    """
    The A An If How When What Where Which Who She He It They We You I In On At For From To Of And But So Then Each
    Every After Before There This That These Those His Her Their Its My Our As While During Since Because Given
    Assuming Calculate Find One Two Three Four Five Six Seven Eight Nine Ten Half Both All Some Monday Tuesday
    Wednesday Thursday Friday Saturday Sunday January February March April May June July August September October
    November December Mr Mrs Ms Dr Christmas Easter Halloween Thanksgiving Not Only Now Today Yesterday Last Next
    First Second Third Out With Also Other Another Total Twenty Thirty Forty Fifty Hundred Suppose Determine Write Let
    However Finally Later By Once Although Even Unfortunately Additionally Over Without Until Upon Per Express Round
    Do Does Did Is Are Was Were Will Would Can Could Should Has Have Had No Any Most Many Part Your Just Currently
    Here Initially Originally Altogether Together Add Multiply Divide Subtract
    """
)
"""Words with a capital that are no names."""


def content(text: str) -> set[str]:
    """The words of a text that say what it is about, without the endings of plurals."""
    return {singular(word) for word in _CONTENT.findall(text.lower()) if word not in COMMON}
