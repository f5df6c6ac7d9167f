"""Stage 2, groups: which adjacent steps do not depend on each other, and why."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, pairwise
from typing import Any

from ..completions import fields, items, sentence_text
from ..errors import ValidationError
from ..outline import Group, SentenceSpan, Step
from ..prompting import numbered
from .base import Stage

KINDS = ("collective", "selective")


@dataclass(frozen=True)
class Groups(Stage[tuple[Group, ...]]):
    """Parallel groups over a summary, in document order; there may be none."""

    name = "groups"
    field = "groups"

    steps: tuple[Step, ...]

    @cached_property
    def labels(self) -> dict[str, SentenceSpan]:
        """The sentences of each step (``2``) and sub-step (``2.1``)."""
        found = {str(number): step.span for number, step in enumerate(self.steps, 1)}
        for number, step in enumerate(self.steps, 1):
            found |= {f"{number}.{sub}": substep.span for sub, substep in enumerate(step.substeps, 1)}
        return found

    def inputs(self) -> dict[str, Any]:
        return {"steps": self.steps, "sentences": numbered(self.trace.sentences)}

    def read(self, value: Any) -> tuple[Group, ...]:
        groups = [self._group(group, f"group {number}") for number, group in enumerate(items(value, "'groups'"), 1)]
        for (first, a), (second, b) in combinations(enumerate(groups, 1), 2):
            overlap = a.span.first <= b.span.last and b.span.first <= a.span.last
            if overlap and not _inside(a, b) and not _inside(b, a):
                detail = f"groups {first} and {second} share steps: a group lies inside one path of another, or apart from it"
                raise ValidationError("crossing groups", detail)
        dialect = self.config.tags  # groups that it cannot express are left out
        groups = [group for group in groups if dialect.max_paths is None or len(group.spans) <= dialect.max_paths]
        if not dialect.nests:
            groups = [group for group in groups if not any(_inside(group, other) for other in groups if other is not group)]
        # An outer group comes before those inside it.
        return tuple(sorted(groups, key=lambda group: (group.span.first, -group.span.last)))

    def _group(self, value: Any, what: str) -> Group:
        kind, reason, paths = fields(value, what, "kind", "reason", "paths")
        if kind not in KINDS:
            raise ValidationError("wrong shape", f"the kind of {what} is {str(kind)[:40]!r}: it must be {' or '.join(KINDS)}")
        labels = [self._labels(path, f"path {number} of {what}") for number, path in enumerate(items(paths, what), 1)]
        if len(labels) < 2:
            raise ValidationError("too few paths", f"{what} has {len(labels)} path(s): a group needs at least two")
        order = self._siblings(labels[0][0])
        flat = [label for path in labels for label in path]
        for before, after in pairwise(flat):
            if after not in order:
                detail = f"{what} holds {before} and {after}: all steps of a group belong to one level and one step above"
                raise ValidationError("wrong numbering", detail)
            if order.index(after) != order.index(before) + 1:
                detail = f"{what} goes from {before} to {after}: its steps must follow each other, in order, each once"
                raise ValidationError("not adjacent", detail)
        spans = tuple(SentenceSpan(self.labels[path[0]].first, self.labels[path[-1]].last) for path in labels)
        return Group(kind, sentence_text(reason, f"the reason of {what}"), tuple(map(tuple, labels)), spans)

    def _labels(self, value: Any, what: str) -> list[str]:
        labels = [str(label) if type(label) is int else label for label in items(value, what)]
        if not labels:
            raise ValidationError("empty path", f"{what} names no step: it needs at least one")
        for label in labels:
            if not isinstance(label, str) or label not in self.labels:
                known = "steps are named as in '2', sub-steps as in '2.1'"
                raise ValidationError("wrong numbering", f"{what} names {str(label)[:40]!r}, which there is not: {known}")
        return labels

    def _siblings(self, label: str) -> list[str]:
        head, _, below = label.partition(".")
        if not below:
            return [str(number) for number in range(1, len(self.steps) + 1)]
        return [f"{head}.{number}" for number in range(1, len(self.steps[int(head) - 1].substeps) + 1)]


def _inside(inner: Group, outer: Group) -> bool:
    return any(path.contains(inner.span) for path in outer.spans)
