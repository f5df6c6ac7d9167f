"""Text one token at a time, without ever cutting a character in two."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from multiverse.engine.characters import ends_inside_of
from multiverse.engine.text import TextStream
from tests.conftest import build_tokenizer

TOKENIZER: Any = build_tokenizer()


def decode(token_ids: list[int]) -> str:
    text: str = TOKENIZER.decode(token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


# Without knowing the tokens' bytes, the replacement character itself looks like an unfinished character.
TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="�"), max_size=30)
ends_inside = ends_inside_of(TOKENIZER)


# Without tags, which are pieces of several characters.
@given(text=st.text(st.one_of(st.characters(exclude_categories=("Cs",), exclude_characters="<"), st.just("�")), max_size=30))
def test_a_replacement_character_that_was_written_is_text(text: str) -> None:
    stream = TextStream(decode, (), ends_inside)
    pieces = [stream.push(token) for token in TOKENIZER.encode(text, add_special_tokens=False)]
    assert "".join(pieces) == text
    assert all(len(piece) <= 1 for piece in pieces)


@given(text=TEXTS)
def test_pieces_are_whole_characters_and_make_up_the_text(text: str) -> None:
    stream = TextStream(decode)
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    so_far = ""
    for token in ids:
        piece = stream.push(token)
        so_far += piece
        assert "�" not in piece
        assert text.startswith(so_far)
        assert stream.text == so_far
    assert so_far == text == decode(ids)
    assert "".join(stream.pieces) == text
    assert len(stream.pieces) == len(ids)


def test_a_character_comes_with_the_token_that_completes_it() -> None:
    stream = TextStream(decode)
    assert [stream.push(token) for token in TOKENIZER.encode("aé😀b")] == ["a", "", "é", "", "", "", "😀", "b"]
    assert stream.pieces == ["a", "", "é", "", "", "", "😀", "b"]


@given(ids=st.lists(st.integers(0, len(TOKENIZER) - 1), max_size=25))
def test_any_tokens_at_all(ids: list[int]) -> None:
    # A model may write bytes that are no text: what is shown is still a beginning of what the whole decodes to.
    stream = TextStream(decode)
    for token in ids:
        stream.push(token)
    assert decode(ids).startswith(stream.text)
    closed = TOKENIZER.encode("</Think>x")
    for token in closed:
        stream.push(token)
    assert stream.text == decode([*ids, *closed])


def test_words_keep_their_spaces_in_tokenizers_that_drop_the_first() -> None:
    # As SentencePiece does: a space before every word, dropped at the start of a text.
    words = ["▁a", "▁b", "c", "▁", "d"]

    def pieces(ids: list[int]) -> str:
        return "".join(words[i] for i in ids).replace("▁", " ").removeprefix(" ")

    stream = TextStream(pieces)
    for token in (0, 1, 2, 3, 4, 0):
        stream.push(token)
    assert stream.text == pieces([0, 1, 2, 3, 4, 0]) == "a bc d a"


def stream_of(text: str, *stops: str) -> list[tuple[int, int | None]]:
    """After each character, a token each: how many tokens are held back, and where a stop string was met."""
    stream = TextStream(lambda ids: "".join(map(chr, ids)), stops)
    states = []
    for character in text:
        stream.push(ord(character))
        states.append((stream.held, stream.stop_at))
    return states


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    assert stream_of("aab", "ab") == [(1, None), (1, None), (2, 1)]
    assert stream_of("xabab", "abac", "z") == [(0, None), (1, None), (2, None), (3, None), (2, None)]
    assert stream_of("ab", "b") == [(0, None), (1, 1)]
    assert stream_of("ab") == [(0, None), (0, None)]


def test_tokens_without_text_are_held_back_with_what_precedes_them() -> None:
    stream = TextStream(lambda ids: "".join(("a", "", "bc")[i] for i in ids), ("ab",))
    held = [(stream.push(token), stream.held)[1] for token in (1, 0, 1, 2)]
    assert held == [0, 1, 2, 3]
    assert (stream.stop_at, stream.excess) == (0, 3)
    stream = TextStream(lambda ids: "a" * len(ids), ("ab",))
    stream.push(0)
    stream.push_end()
    assert stream.held == 2


@given(text=st.text("ab", max_size=12), stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_the_first_stop_string_is_found(text: str, stops: list[str]) -> None:
    met = False
    for end, (held, stop_at) in enumerate(stream_of(text, *stops), 1):
        places = [at for at in (text[:end].find(stop) for stop in stops) if at >= 0]
        if not met:
            assert stop_at == (min(places) if places else None)
            longest = max((n for stop in stops for n in range(len(stop)) if text[:end].endswith(stop[:n])), default=0)
            assert held == longest or places
        met = met or bool(places)
