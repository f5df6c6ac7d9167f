"""Parts of characters: which tokens hold one, and what becomes of them where a text is cut off or closed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from multiverse import LLM, Generation
from multiverse.engine import FinishEvent, TokenEvent
from multiverse.engine.characters import count_unfinished, ends_inside_of
from multiverse.engine.scripted import Script, ScriptedSampler
from multiverse.streaming import DocumentOrder
from multiverse.structure import Block, Document
from tests.conftest import build_tokenizer
from tests.engine.steering import GREEDY, PolicySampler

SIGN = "界"  # three bytes, and as many tokens


def byte_fallback() -> PreTrainedTokenizerFast:
    """A tokenizer that writes every character as bytes, as those of Llama 2 write characters that they do not know."""
    vocabulary = [("<unk>", 0.0), *((f"<0x{byte:02X}>", 0.0) for byte in range(256)), ("▁", -1.0), ("▁a", -1.0)]
    core = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


@pytest.mark.parametrize("tokenizer", [build_tokenizer(), byte_fallback()], ids=["byte-level", "byte fallback"])
@pytest.mark.parametrize("text", ["é", "界", "😀", "a", "�", "a界", "~"])
def test_a_text_ends_inside_a_character_until_its_last_byte(tokenizer: Any, text: str) -> None:
    ends_inside = ends_inside_of(tokenizer)
    assert ends_inside is not None
    ids = tokenizer.encode(text, add_special_tokens=False)
    whole = len(text.encode()) - len(text[-1].encode())  # tokens before the last character, one for each byte
    assert len(ids) == len(text.encode())
    for count in range(len(ids) + 1):
        inside = whole < count < len(ids)
        assert ends_inside(ids[:count]) == inside
        assert count_unfinished(ids[:count], ends_inside) == (count - whole if inside else 0)


def test_bytes_that_no_character_has_do_not_wait_for_more() -> None:
    tokenizer: Any = build_tokenizer(None)
    ends_inside = ends_inside_of(tokenizer)
    assert ends_inside is not None
    first, second, _ = tokenizer.encode(SIGN)
    never = next(token for token in range(256) if tokenizer.convert_ids_to_tokens(token) == "ÿ")
    assert count_unfinished([first, first, second], ends_inside) == 3
    assert count_unfinished([first, never], ends_inside) == 0
    assert count_unfinished([second, second], ends_inside) == 0


def test_added_tokens_are_whole() -> None:
    other: Any = build_tokenizer()
    other.add_tokens(["<界>", "<é"])
    ends_inside = ends_inside_of(other)
    assert ends_inside is not None
    assert not ends_inside(other.encode("<界>"))
    assert not ends_inside(other.encode("<é"))


def test_tokenizers_without_bytes_are_not_guessed_at() -> None:
    core = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    assert ends_inside_of(PreTrainedTokenizerFast(tokenizer_object=core)) is None


def cut_short(llm: LLM, document: Document, **limits: Any) -> tuple[Generation, str]:
    """A document that a limit closes before its end, and its text as it was streamed."""
    engine, tokens = llm.engine, llm.engine.tokens
    assert tokens is not None
    sampler = engine.sampler = ScriptedSampler()
    request = engine.submit(tokens.encode("Q"), replace(GREEDY, **limits), listening=True)
    sampler.scripts[request.id] = Script(document, tokens, int(llm.tokenizer.eos_token_id))
    order, text = DocumentOrder(), ""
    while True:
        engine.step()
        for event in engine.drain(request):
            text += order.feed_text(event)
            if isinstance(event, FinishEvent):
                return event.generation, text


PATHS = Document((Block(("a", "b"), ((SIGN * 30,), (SIGN * 40,)), "c"),), "A")
OUTLINES = Document((Block((SIGN * 60, "b"), (("x",), ("y",)), "c"),), "A")


@pytest.mark.parametrize("limit", [30, 31, 32])
def test_a_path_closed_inside_a_character_ends_before_it(llm: LLM, limit: int) -> None:
    generation, streamed = cut_short(llm, PATHS, max_branch_tokens=limit)
    assert [label for label, _ in generation.closed] == ["1", "2"]
    assert generation.text.count(f"{SIGN}\n</Path>") == 2
    assert streamed == generation.text
    assert generation.usage.total_tokens == len(generation.token_ids) == len(generation.logprobs or ())
    # The tokens stay, since the model has seen them.
    assert llm.engine.decode(list(generation.token_ids[:-1])).replace("�", "") == generation.text


def test_of_three_limits_in_a_row_two_are_inside_a_character(llm: LLM) -> None:
    kept = [cut_short(llm, PATHS, max_branch_tokens=limit)[0].token_ids for limit in (30, 31, 32)]
    assert sorted(llm.engine.decode(list(token_ids)).count("�\n</Path>") for token_ids in kept) == [0, 2, 2]


@pytest.mark.parametrize("document", [PATHS, OUTLINES], ids=["paths", "outlines"])
@pytest.mark.parametrize("max_tokens", [98, 99, 100])
def test_whatever_is_closed_ends_with_a_whole_character(llm: LLM, document: Document, max_tokens: int) -> None:
    generation, streamed = cut_short(llm, document, max_tokens=max_tokens, seed=1)
    assert generation.finish_reason == "length"
    assert f"{SIGN}\n</" in generation.text
    closing = generation.text[: generation.text.index("<Conclusion>")]  # what follows is the random model's
    assert "�" not in closing
    assert streamed == generation.text


@pytest.mark.parametrize("stop", [(), ("never",)])
def test_a_text_that_is_cut_off_ends_with_a_whole_character(llm: LLM, stop: tuple[str, ...]) -> None:
    tokens = llm.engine.tokens
    assert tokens is not None
    sign = tokens.encode(SIGN)
    llm.engine.sampler = PolicySampler(lambda _, branch: sign[len(branch.token_ids) % 3])
    for count in (3, 4, 5):
        params = replace(GREEDY, max_tokens=count, max_depth=0, stop=stop)
        (generation,) = llm.generate("Q", params)
        assert (generation.text, generation.answer, len(generation.token_ids)) == (SIGN, SIGN, count)
        streamed = "".join(event.text for event in llm.stream("Q", params) if isinstance(event, TokenEvent))
        assert streamed == SIGN


def test_a_written_replacement_character_is_text_to_the_last(llm: LLM) -> None:
    tokens = llm.engine.tokens
    assert tokens is not None
    written = tokens.encode("a�")
    llm.engine.sampler = PolicySampler(lambda _, branch: written[len(branch.token_ids)])
    params = replace(GREEDY, max_tokens=len(written), max_depth=0)
    assert llm.generate("Q", params)[0].text == "a�"
    assert "".join(event.text for event in llm.stream("Q", params) if isinstance(event, TokenEvent)) == "a�"
