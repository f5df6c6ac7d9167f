"""Products, powers and what they are made of: the lower half of the reader."""

from __future__ import annotations

from fractions import Fraction

from . import vocabulary
from .commands import PASSED, Commands
from .expression import ONE, Expr, Num, Op, Unit, divided, times
from .forms import Unreadable
from .nodes import Node, as_expr, negative, scaled, unit_named
from .tokens import Token


class Primary(Commands):
    """Reads products."""

    def product(self) -> Node:
        """Factors, with signs between them or without."""
        self.enter()
        left = self.factor()
        self.unit_ended = False
        while True:
            token = self.token
            if (token.kind == "sym" and token.text in ("*", "/")) or (
                token.kind == "cmd" and token.text in ("cdot", "div", "ast")
            ):
                self.take()
                right = self._signed_factor()
                self.unit_ended = False
                left = scaled(left, divided(ONE, as_expr(right))) if token.text in ("/", "div") else scaled(left, right)
            elif token.kind == "cmd" and token.text in ("pmod", "bmod", "mod"):
                self.take()
                right = self._argument() if token.text == "pmod" else self.factor()
                left = Op("pmod" if token.text == "pmod" else "mod", (as_expr(left), as_expr(right)))
            elif token.kind == "word":
                left, self.unit_ended = self._withunit_named(left), True
            elif (
                self.begins(token)
                and (token.kind != "num" or _is_operation(left))
                and not (self.unit_ended and token.kind == "name")
            ):
                left, self.unit_ended = scaled(left, self.factor()), False
            elif token.kind == "name" and self.unit_ended and token.text in "CF":
                self.take()  # degrees of temperature
            else:
                self.depth -= 1
                return left

    def _signed_factor(self) -> Node:
        if self.token.kind == "sym" and self.token.text in ("-", "+"):
            sign = self.take().text
            inner = self._signed_factor()
            return negative(inner) if sign == "-" else inner
        return self.factor()

    def begins(self, token: Token) -> bool:
        """Whether a token begins a factor."""
        if token.kind == "sym":
            return token.text in ("(", "{", "[", "\\{", "\\$") or (token.text == "|" and not self.bars and not self.builders)
        if token.kind == "cmd":
            return (
                token.text in ("frac", "sqrt", "infty", "inf", "pi", "binom", "dbinom", "tbinom", "lfloor", "lceil", "circ")
                or token.text in vocabulary.GREEK
                or token.text in vocabulary.FUNCTIONS
                or token.text in PASSED
                or token.text in ("imath", "begin", "langle", "mathbb")
            )
        return token.kind in ("num", "name")

    def _withunit_named(self, left: Node) -> Node:
        """A value and the words behind it: units, or words that do not change it."""
        word = self.take().text
        if word.lower() in ("per", "a") and self.token.kind == "word" and self.token.text in vocabulary.UNITS:
            return scaled(left, divided(ONE, self._powered(Unit(self.take().text))))
        if word.lower() in vocabulary.MULTIPLES:
            return scaled(left, Num(Fraction(vocabulary.MULTIPLES[word.lower()])))
        power = {"square": 2, "sq": 2, "cubic": 3}.get(word.lower())
        if power is not None and self.token.kind == "word" and unit_named(self.token.text) != Unit(""):
            return scaled(left, Op("^", (unit_named(self.take().text), Num(Fraction(power)))))
        return scaled(left, self._powered(unit_named(word)))

    def _powered(self, unit: Expr) -> Expr:
        if self.token.text == "^":
            self.take()
            return Op("^", (unit, as_expr(self.exponent())))
        if self.token.kind == "word" and self.token.text in ("squared", "cubed"):
            return Op("^", (unit, Num(Fraction(2 if self.take().text == "squared" else 3))))
        return unit

    def factor(self) -> Node:
        """A primary with what stands behind it: powers, factorials, percents, degrees."""
        node = self.primary()
        while True:
            token = self.token
            if token.kind != "sym":
                return node
            if token.text in ("^", "**"):
                self.take()
                node = self._power(node)
            elif token.text == "!" or token.text == "\\!":
                self.take()
                double = self.token.text == "!" and not self.token.spaced
                if double:
                    self.take()
                node = Op("!!" if double else "!", (as_expr(node),))
            elif token.text in ("%", "\\%"):
                self.take()
                node = times(as_expr(node), Unit("percent"))
                self.unit_ended = True
            elif token.text == "°":
                self.take()
                node = times(as_expr(node), Unit("deg"))
            else:
                return node

    def _power(self, base: Node) -> Node:
        if self.token.text == "circ" or (self.token.text == "{" and self.after().text == "circ" and self.after(2).text == "}"):
            if self.take().text == "{":
                self.at += 2
            return times(as_expr(base), Unit("deg"))
        if self.token.text == "prime" or self.token.text in ("T", "c"):
            raise Unreadable("a derivative or a transposed matrix")
        return Op("^", (as_expr(base), as_expr(self.exponent())))

    def exponent(self) -> Node:
        if self.token.kind == "sym" and self.token.text in ("-", "+"):
            sign = self.take().text
            inner = self.exponent()
            return negative(inner) if sign == "-" else inner
        node = self.primary()
        if self.token.text in ("^", "**"):
            self.take()
            return Op("^", (as_expr(node), as_expr(self.exponent())))
        if self.token.text == "!":
            self.take()
            return Op("!", (as_expr(node),))
        return node

    def primary(self) -> Node:
        """A number, a name, a command with its arguments, or brackets."""
        token = self.take()
        if token.kind == "num":
            return self._number(token)
        if token.kind == "name":
            return self._name(token.text)
        if token.kind == "word" and unit_named(token.text) != Unit(""):
            return self._powered(unit_named(token.text))
        if token.kind == "cmd":
            return self._command(token.text)
        if token.text in ("(", "[", "\\{", "{"):
            return self.brackets(token.text)
        if token.text == "|":
            self.bars += 1
            inner = self.sum()
            self.bars -= 1
            self.expect("|")
            return Op("abs", (as_expr(inner),))
        if token.text == "\\$":
            return times(as_expr(self.factor()), Unit("dollar"))
        raise Unreadable(f"unexpected {token.text!r}")


def _is_operation(node: Node) -> bool:
    """Whether a product goes on behind this with a numeral: two numerals side by side are no product."""
    last = node
    while isinstance(last, Op) and last.name == "*" and last.args:
        last = last.args[-1]
    return isinstance(last, Op)
