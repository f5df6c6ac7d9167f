"""Brackets: groups, tuples, intervals, sets, matrices."""

from __future__ import annotations

from .cursor import Cursor
from .expression import Expr, Op, divided
from .forms import Builder, Items, Matrix, Span, Unreadable
from .nodes import Node, as_expr, as_form


class Brackets(Cursor):
    """Reads what stands in brackets."""

    def brackets(self, opener: str) -> Node:
        self.enter()
        bars, self.bars = self.bars, 0
        node = self._set(opener) if opener in ("\\{", "{") else self._round(opener)
        self.bars = bars
        self.depth -= 1
        return node

    def _round(self, opener: str) -> Node:
        """A group, a tuple, or an interval."""
        items = self.contents((")", "]"))
        brackets = opener + self.take().text
        if len(items) == 2 and brackets != "()":
            return Span(as_expr(items[0]), as_expr(items[1]), opener == "[", brackets[1] == "]")
        if brackets not in ("()", "[]"):
            raise Unreadable("brackets of different kinds")
        return items[0] if len(items) == 1 else Items("tuple", tuple(as_form(item) for item in items))

    def _set(self, opener: str) -> Node:
        """A set; or, in plain braces, a group of LaTeX."""
        closer = "\\}" if opener == "\\{" else "}"
        bar = self._builder_bar(closer)
        if bar is not None:
            return self._builder(bar, closer)
        if opener == "{" and self.token.text != closer:
            first = self.part()
            if self.token.text in ("}", "over", "choose"):
                return self._closed(first)
            items = self.contents((closer,), [first])
        else:
            items = self.contents((closer,))
        self.expect(closer)
        return Items("set", tuple(as_form(item) for item in items))

    def group(self) -> Node:
        """What stands in braces, behind the opening one."""
        return self._closed(self.part())

    def _closed(self, node: Node) -> Node:
        """A group to its closing brace; ``{a \\over b}`` is a fraction, ``{a \\choose b}`` a binomial coefficient."""
        if self.token.text in ("over", "choose"):
            over = self.take().text == "over"
            first, second = as_expr(node), as_expr(self.sum())
            node = divided(first, second) if over else Op("binom", (first, second))
        self.expect("}")
        return node

    def _builder_bar(self, closer: str) -> int | None:
        """Where the condition of a set-builder begins; `None` if there is no condition."""
        depth = 0
        for index in range(self.at, len(self.tokens)):
            token = self.tokens[index]
            if token.kind in ("cmd", "sym") and depth == 0 and token.text in ("mid", "|", ":") and index > self.at:
                return index
            if token.kind == "sym":
                if token.text == closer and depth == 0:
                    return None
                depth += (token.text in ("(", "[", "{", "\\{")) - (token.text in (")", "]", "}", "\\}"))
        return None

    def _builder(self, bar: int, closer: str) -> Node:
        self.builders += 1
        self.part()
        if self.at != bar:
            raise Unreadable("a set-builder whose variable cannot be read")
        if any(
            token.text == "mathbb" and self.tokens[index + 2].text != "R" for index, token in enumerate(self.tokens[: bar - 2])
        ):
            raise Unreadable("a set of other numbers than the real ones")
        self.take()
        condition = self.answer((closer,))
        self.expect(closer)
        self.builders -= 1
        return Builder(condition)

    def environment(self) -> Node:
        name = self.subscript()
        if name.rstrip("*") not in ("pmatrix", "bmatrix", "matrix", "smallmatrix", "array", "Bmatrix"):
            raise Unreadable(f"the environment {name} is not known")
        if name == "array" and self.token.text == "{":
            self.subscript()
        rows: list[list[Expr]] = [[]]
        while not (self.token.kind == "cmd" and self.token.text == "end"):
            if self.token.text == "\\\\":
                self.take()
                rows.append([])
            elif self.token.text == "&" or self.token.text == "hline":
                self.take()
            else:
                rows[-1].append(as_expr(self.sum()))
        self.take()
        self.subscript()
        rows = [row for row in rows if row]
        if not rows or len({len(row) for row in rows}) != 1:
            raise Unreadable("a matrix with rows of different lengths")
        return Matrix(tuple(tuple(row) for row in rows))
