"""Words of mathematical answers: functions, constants, units, and characters that stand for commands of LaTeX."""

from __future__ import annotations

from fractions import Fraction

FUNCTIONS = {
    **{name: name for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth", "sech", "csch")},
    **{f"arc{name}": f"a{name}" for name in ("sin", "cos", "tan", "cot", "sec", "csc")},
    **{f"a{name}": f"a{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")},
    **{name: name for name in ("exp", "abs", "floor", "min", "max", "gcd", "lcm", "arg", "binom")},
    **{"ln": "ln", "log": "log", "lg": "lg", "ceil": "ceil", "Re": "re", "Im": "im", "cosec": "csc", "ctg": "cot", "tg": "tan"},
}
"""Names, and what they are called in `expression`."""

CONSTANTS = {"pi": "pi", "infinity": "inf", "infty": "inf", "inf": "inf", "oo": "inf", "Pi": "pi"}

GREEK = frozenset(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma tau upsilon "  # noqa: SIM905
    "phi varphi chi psi omega Gamma Delta Theta Lambda Xi Sigma Upsilon Phi Psi Omega ell hbar".split()
)

_METRE, _SECOND, _GRAM, _LITRE = "m", "s", "g", "l"
_INCH, _POUND, _GALLON = Fraction(254, 10_000), Fraction(45_359_237, 100_000), Fraction(3_785_411_784, 10**9)
_BASE: tuple[tuple[str, str, Fraction], ...] = (
    # names, dimension, how many of the dimension's own unit
    ("m meter meters metre metres", _METRE, Fraction(1)),
    ("cm centimeter centimeters centimetre centimetres", _METRE, Fraction(1, 100)),
    ("mm millimeter millimeters millimetre millimetres", _METRE, Fraction(1, 1000)),
    ("km kilometer kilometers kilometre kilometres", _METRE, Fraction(1000)),
    ("in inch inches", _METRE, _INCH),
    ("ft foot feet", _METRE, 12 * _INCH),
    ("yd yard yards", _METRE, 36 * _INCH),
    ("mi mile miles", _METRE, 63_360 * _INCH),
    ("s sec secs second seconds", _SECOND, Fraction(1)),
    ("min mins minute minutes", _SECOND, Fraction(60)),
    ("h hr hrs hour hours", _SECOND, Fraction(3600)),
    ("day days", _SECOND, Fraction(86_400)),
    ("week weeks", _SECOND, Fraction(604_800)),
    ("month months", "month", Fraction(1)),
    ("yr year years", "month", Fraction(12)),
    ("g gram grams", _GRAM, Fraction(1)),
    ("kg kilogram kilograms", _GRAM, Fraction(1000)),
    ("mg milligram milligrams", _GRAM, Fraction(1, 1000)),
    ("lb lbs pound pounds", _GRAM, _POUND),
    ("oz ounce ounces", _GRAM, _POUND / 16),
    ("l L liter liters litre litres", _LITRE, Fraction(1)),
    ("ml mL milliliter milliliters millilitre millilitres", _LITRE, Fraction(1, 1000)),
    ("gal gallon gallons", _LITRE, _GALLON),
    ("quart quarts", _LITRE, _GALLON / 4),
    ("dollar dollars usd USD", "money", Fraction(1)),
    ("cent cents", "money", Fraction(1, 100)),
    ("deg degree degrees", "angle", Fraction(1)),
    ("unit units", "unit", Fraction(1)),
    ("percent percentage pct", "percent", Fraction(1, 100)),
)
UNITS: dict[str, tuple[str, Fraction]] = {
    name: (dimension, factor) for names, dimension, factor in _BASE for name in names.split()
}
"""Unit of each name: its dimension, and its size in that dimension's own unit."""
COMPOUND = {
    "mph": "mi/h",
    "kmh": "km/h",
    "kph": "km/h",
    "sqft": "ft^2",
    "cc": "cm^3",
    **{f"{base}{power}": f"{base}^{power}" for base in ("cm", "m", "mm", "km", "in", "ft") for power in (2, 3)},
}
SINGLE = frozenset("m s g h l L".split())  # noqa: SIM905
"""Units of one letter: behind a number and a space they may be meant, but so may a variable."""

_SMALL = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
nineteen twenty
"""
NUMBERS = _SMALL.split()
"""Words of the numbers from 0."""

MULTIPLES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}

CHARACTERS = {
    **dict.fromkeys("−–—‒﹣－", "-"),
    **{"×": r"\cdot ", "·": r"\cdot ", "⋅": r"\cdot ", "∗": "*", "÷": "/", "∕": "/", "⁄": "/", "π": r"\pi ", "∞": r"\infty "},
    **{"√": r"\sqrt ", "°": r"^\circ ", "º": r"^\circ ", "±": r"\pm ", "∓": r"\mp ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne "},
    **{"⩽": r"\le ", "⩾": r"\ge ", "≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∖": r"\setminus "},
    **{"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "∅": r"\emptyset ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta "},
    **{"⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "∣": "|"},
    **{"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"},
    **{"⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}", "⅘": r"\frac{4}{5}", "⅛": r"\frac{1}{8}"},
    **{
        "\u00a0": " ",
        "\u2009": r"\,",
        "\u202f": r"\,",
        "\u2007": " ",
        "\u200b": "",
        "\u2061": "",
        "\u2062": "",
        "¢": " cents ",
    },
    **{"，": ",", "（": "(", "）": ")", "＝": "=", "：": ":", "€": "", "£": ""},
}
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
