"""Roles of tokens, from the machine of their branch."""

from __future__ import annotations

import pytest
from hypothesis import given

from multiverse.engine.text import TextStream
from multiverse.errors import StructureError
from multiverse.structure import MULTIVERSE, Document, Machine, Role, RoleTracker, TokenDialect, TokenRole, encode
from tests.structure.adapted import TOKENIZERS, TOKENS, dialect_documents

STRUCTURE = TokenRole("structure")


def classify(machine: Machine, tracker: RoleTracker, *tokens: tuple[int, str]) -> list[TokenRole]:
    roles = []
    for token, text in tokens:
        try:
            machine.feed(token)
            roles.append(tracker.classify(token, text))
        except StructureError:
            roles.append(tracker.classify(token, text, legal=False))
    return roles


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["\n", "1", ":", " Red", " team", "\n"], " Red team\n"),
        (["\n1", ": Red"], " Red"),
        (["1:Red"], "Red"),
        (["\n1: ", "1: Red"], " 1: Red"),
        (["odd"], "odd"),
        (["", "\n1:", ""], ""),
    ],
)
def test_the_text_of_an_outline_starts_behind_its_label(pieces: list[str], expected: str) -> None:
    tokens = TOKENS[MULTIVERSE.name]
    machine = Machine(tokens)
    tracker = RoleTracker(machine)
    opening = (Role.THINK_OPEN, Role.BLOCK_OPEN, Role.GOAL_OPEN, Role.OUTLINE_OPEN)
    opened = classify(machine, tracker, *((tokens.ids[role], tokens.tag(role)) for role in opening))
    assert opened == [STRUCTURE, STRUCTURE, TokenRole("structure", opens_goal=True), STRUCTURE]
    roles = classify(machine, tracker, *((5, piece) for piece in pieces))
    text = "".join(piece[role.label_length :] for piece, role in zip(pieces, roles, strict=True) if role.role == "outline")
    assert text == expected
    assert {role.outline for role in roles if role.role == "outline"} <= {"1"}


def test_without_a_dialect_every_token_is_text() -> None:
    assert RoleTracker(None).classify(1, "one") == TokenRole("text")


def test_tokens_behind_the_closed_thinking_are_answer() -> None:
    tokens = TOKENS[MULTIVERSE.name]
    close = tokens.ids[Role.THINK_CLOSE]
    machine = Machine(tokens)
    assert [role.role for role in classify(machine, RoleTracker(machine), (5, "x"))] == ["text"]
    machine.feed(tokens.ids[Role.THINK_OPEN])  # as a prompt does that opens the thinking
    roles = classify(machine, RoleTracker(machine), (5, "x"), (close, "</Think>"), (6, "x"))
    assert [role.role for role in roles] == ["text", "structure", "answer"]


def test_a_tag_that_breaks_the_grammar_is_structure() -> None:
    tokens = TOKENS[MULTIVERSE.name]
    machine = Machine(tokens)
    assert classify(machine, RoleTracker(machine), (tokens.ids[Role.GOAL_OPEN], "<Goal>")) == [STRUCTURE]


def solid(text: str) -> str:
    """A text without its white space."""
    return "".join(text.split())


@given(case=dialect_documents())
def test_outlines_conclusions_and_answer_of_a_document_have_their_roles(case: tuple[TokenDialect, Document]) -> None:
    tokens, document = case
    dialect = tokens.dialect
    encoded = encode(document, tokens)
    layout = encoded.layout
    machines = [Machine(tokens, branch.label) for branch in layout.table]
    trackers = [RoleTracker(machine) for machine in machines]
    streams = [TextStream(TOKENIZERS[dialect.name].decode) for _ in machines]
    texts: dict[str, str] = {}
    for token, branch, forced in zip(encoded.token_ids, layout.branches, layout.forced, strict=True):
        if machines[branch].waiting:
            machines[branch].resume()
        machines[branch].feed(token)
        text = streams[branch].push(token)
        role = trackers[branch].classify(token, text, forced=forced)
        assert role.role == "structure" or (token not in tokens.roles and not forced)
        texts[role.role] = texts.get(role.role, "") + text[role.label_length :]
    blocks = [block for _, block in document.blocks()]
    # Without white space, as not every dialect has it around tags. A nested block concludes before the one around it.
    outlines, conclusions = "".join(o for block in blocks for o in block.outlines), "".join(b.conclusion for b in blocks)
    assert sorted(solid(texts.get("outline", ""))) == sorted(solid(outlines))
    assert sorted(solid(texts.get("conclusion", ""))) == sorted(solid(conclusions))
    if (document.thinking is not None and dialect.think is not None) or dialect.forks_answer:
        # Text of the trunk alone: that of an answer's paths has the role of other paths.
        assert solid(texts.get("answer", "")) == solid("".join(item for item in document.answer if isinstance(item, str)))
