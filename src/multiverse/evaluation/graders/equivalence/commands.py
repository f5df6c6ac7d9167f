"""Numbers, names, and commands of LaTeX with their arguments."""

from __future__ import annotations

from fractions import Fraction

from . import vocabulary
from .brackets import Brackets
from .expression import ONE, Expr, Num, Op, Sym, Unit, divided, negated, plus, times
from .forms import Based, Items, Span, Unreadable
from .nodes import Node, as_expr, as_form, as_fraction, in_radians, negative
from .tokens import Token

_INFINITY = Op("inf")
_TEN, _TWO = Num(Fraction(10)), Num(Fraction(2))
PASSED = frozenset(
    "overline bar hat vec tilde widehat overrightarrow underline boxed fbox mathcal mathscr angle triangle".split()  # noqa: SIM905
)
"""Commands whose argument is read as if they were not there."""
REALS = Span(negated(_INFINITY), _INFINITY, False, False)
_BASES = {word: base for base, word in enumerate(vocabulary.NUMBERS)}


class Commands(Brackets):
    """Reads numbers, names and commands."""

    def _number(self, token: Token) -> Node:
        number = Num(token.value, token.decimal)
        if self.token.text == "_":
            self.take()
            return self._based(token)
        if self.token.text in ("overline", "bar", "dot") and token.text.count(".") == 1 and not self.token.spaced:
            return self._repeating(token)
        if token.decimal or token.value.denominator != 1:
            return number
        fraction = self._fraction_behind()
        return number if fraction is None else plus(number, Num(fraction))

    def _fraction_behind(self) -> Fraction | None:
        """The proper fraction of a mixed number; `None` where there is none."""
        start = self.at
        top = bottom = None
        if self.token.text == "frac":
            self.take()
            top, bottom = self._digits(), self._digits()
        elif self.token.kind == "num" and self.token.spaced and self.after().text == "/" and self.after(2).kind == "num":
            top, bottom = self.token.value, self.after(2).value
            self.at += 3
        if top is None or bottom is None or top.denominator != 1 or bottom.denominator != 1 or not 0 < top < bottom:
            self.at = start
            return None
        return top / bottom

    def _digits(self) -> Fraction | None:
        """An argument that is a number: in braces, or a single digit."""
        if self.token.text == "{" and self.after().kind == "num" and self.after(2).text == "}":
            self.at += 3
            return self.tokens[self.at - 2].value
        if self.token.kind == "num":
            return as_fraction(self._argument())
        return None

    def _based(self, token: Token) -> Node:
        digits = token.text
        text = self.subscript()
        base = _BASES.get(text.lower(), int(text) if text.isdecimal() and len(text) < 3 else 0)
        if not 2 <= base <= 36 or not digits.isdecimal():
            raise Unreadable("a number with a subscript that is no base")
        try:
            return Based(Fraction(int(digits, base)), base)
        except ValueError:
            raise Unreadable(f"{digits[:40]!r} is no number in base {base}") from None

    def _repeating(self, token: Token) -> Node:
        """``0.1\\overline{6}``."""
        self.take()
        braced = self.token.text == "{"
        if braced:
            self.take()
        period = self.take()
        if braced:
            self.expect("}")
        if period.kind != "num" or not period.text.isdecimal():
            raise Unreadable("a period that is no number")
        decimals = len(token.text.split(".")[1])
        return Num(token.value + Fraction(int(period.text), (10 ** len(period.text) - 1) * 10**decimals))

    def _name(self, name: str) -> Node:
        if name == "e" or name == "i":
            return Op(name)
        while self.token.text == "_" or (self.token.kind == "sym" and self.token.text == "'"):
            name += "'" if self.take().text == "'" else f"_{self.subscript()}"
        return Sym(name)

    def _argument(self) -> Node:
        """The argument of a command: a group, or, as in TeX, one digit or one other token."""
        if self.token.kind == "num" and len(self.token.text) > 1 and self.token.text.isdecimal():
            first, rest = self.token.text[0], self.token.text[1:]
            self.tokens = list(self.tokens)
            self.tokens[self.at] = Token("num", rest, False, Fraction(int(rest)))
            return Num(Fraction(int(first)))
        if self.token.text == "{":
            self.take()
            return self.group()
        if self.token.kind == "sym" and self.token.text == "-":
            self.take()
            return negative(self._argument())
        token = self.take()
        if token.kind == "num":
            return Num(token.value, token.decimal)
        if token.kind == "name":
            return Op(token.text) if token.text in ("e", "i") else Sym(token.text)
        if token.kind == "cmd":
            return self._command(token.text)
        if token.text == "(":
            return self.brackets("(")
        raise Unreadable(f"unexpected {token.text!r}")

    def _command(self, name: str) -> Node:
        if name == "frac":
            top = as_expr(self._argument())
            return divided(top, as_expr(self._argument()))
        if name == "sqrt":
            return self._root()
        if name in ("binom", "dbinom", "tbinom"):
            return Op("binom", (as_expr(self._argument()), as_expr(self._argument())))
        if name in vocabulary.CONSTANTS:
            return Op(vocabulary.CONSTANTS[name])
        if name in vocabulary.FUNCTIONS:
            return self._function(vocabulary.FUNCTIONS[name])
        if name in vocabulary.GREEK:
            return self._name("\\" + name)
        if name in PASSED:
            return self._argument()
        if name in ("lfloor", "lceil"):
            inner = as_expr(self.sum())
            self.expect("r" + name[1:])
            return Op("floor" if name == "lfloor" else "ceil", (inner,))
        return self._rare(name)

    def _rare(self, name: str) -> Node:
        if name == "imath":
            return Op("i")
        if name in ("emptyset", "varnothing"):
            return Items("set", ())
        if name == "circ":
            return Unit("deg")
        if name == "langle":
            items = self.contents(("rangle",))
            self.expect("rangle")
            return Items("vector", tuple(as_form(item) for item in items))
        if name == "begin":
            return self.environment()
        if name in ("mathbb", "Bbb") and self.subscript() == "R":
            return REALS
        raise Unreadable(f"\\{name} is not known")

    def _root(self) -> Node:
        degree: Expr = _TWO
        if self.token.text == "[":
            self.take()
            degree = as_expr(self.sum())
            self.expect("]")
        radicand = self.primary() if self.token.kind == "num" else self._argument()  # \\sqrt51 is meant to be the root of 51
        return Op("root", (as_expr(radicand), degree))

    def _function(self, name: str) -> Node:
        base: Expr | None = None
        power: Expr | None = None
        while self.token.text in ("_", "^"):
            if self.take().text == "_":
                base = as_expr(self._argument())
            else:
                power = as_expr(self.exponent())
        args = self._function_arguments()
        if power == negative(ONE) and name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"):
            name, power = f"a{name}", None
        if name in ("ln", "log", "lg"):
            args = [*args[:1], base if base is not None else _TEN if name == "lg" else Op("e")]
            name = "log"
        elif base is not None:
            raise Unreadable("a function with a subscript")
        node: Expr = Op(name, tuple(in_radians(arg) for arg in args))
        return node if power is None else Op("^", (node, power))

    def _function_arguments(self) -> list[Expr]:
        if self.token.text in ("(", "[", "{"):
            inner = self.primary()
            if isinstance(inner, Items):
                return [as_expr(item) for item in inner.items]
            return [as_expr(inner)]
        if self.token.kind == "sym" and self.token.text == "-":
            self.take()
            return [negated(one) for one in self._function_arguments()]
        node = as_expr(self.factor())
        while (
            self.begins(self.token) and self.token.text not in vocabulary.FUNCTIONS and self.token.text not in ("(", "[", "\\{")
        ):
            node = times(node, as_expr(self.factor()))
        return [node]
