"""The bytes of tokens, put together, are the text, however its tokenizer writes them."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from multiverse.engine.token_bytes import TokenBytes
from tests.conftest import build_tokenizer

TEXTS = [
    "plain words",
    "naïve café — 你好, 世界 🦙\n\n\ttab",
    "\ufffd",
    "<Parallel>é</Parallel><eos>",
    "~¡¬®ÿ\u00ad\x7f\x00",
    "",
]


def sentence_piece(metaspace: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of Llama 2's kind: spaces are written as another character, and unknown characters as bytes."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"plainwords", "▁w", "▁pl", "é"]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("▁", "w")], unk_token="<unk>", byte_fallback=True))
    first = [decoders.Metaspace(prepend_scheme="never")] if metaspace else [decoders.Replace("▁", " ")]
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([*first, decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([AddedToken("<eos>", special=True, normalized=False)])
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<Parallel>", "</Parallel>")])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")


def joined(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    of = TokenBytes(tokenizer).of
    return b"".join(of(token) for token in tokenizer.encode(text, add_special_tokens=False)).decode()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["byte-level", "replace", "metaspace"])
def test_the_bytes_of_a_text_s_tokens_are_the_text(kind: str, text: str) -> None:
    tokenizer = (
        build_tokenizer(merges=[("l", "a"), ("Ġ", "w")]) if kind == "byte-level" else sentence_piece(kind == "metaspace")
    )
    assert joined(tokenizer, text) == text


def test_a_part_of_a_character_has_its_own_byte() -> None:
    for tokenizer in (build_tokenizer(), sentence_piece(metaspace=False)):
        of = TokenBytes(tokenizer).of
        assert [of(token) for token in tokenizer.encode("你", add_special_tokens=False)] == [b"\xe4", b"\xbd", b"\xa0"]


def test_a_space_belongs_to_its_word() -> None:
    tokenizer = sentence_piece(metaspace=False)
    assert TokenBytes(tokenizer).of(tokenizer.convert_tokens_to_ids("▁w")) == b" w"


def test_a_row_that_stands_for_nothing_has_no_bytes() -> None:
    tokenizer = build_tokenizer()
    assert TokenBytes(tokenizer).of(len(tokenizer) + 5) == b""


def test_another_decoder_s_tokens_are_what_it_decodes() -> None:
    core = Tokenizer(models.WordPiece({"[UNK]": 0, "play": 1, "##ing": 2}, unk_token="[UNK]"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]")
    assert TokenBytes(tokenizer).of(1) == b"play"
