"""The tokenizer of the mini model: byte-level BPE that treats numbers as digits.

A model of a few million parameters learns arithmetic much faster if every digit is one token and words are whole. So text is
split first (digits, punctuation and line ends alone, words with their leading space), and merges are learned on the project's
own tasks. Any other text is encoded as bytes.

    python -m recipes.mini.tokenizer OUT
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from multiverse.prompting import INSTRUCTIONS
from multiverse.structure import MULTIVERSE, render
from multiverse.tasks import CALCULATIONS, problems

PIECES = r"\n| ?\p{L}[\p{L}\p{M}]*|\p{N}|[^\s\p{L}\p{N}]|\s"
"""Line ends, words with one leading space, digits, punctuation and operators, any other white space; each on its own."""

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

MAX_VOCABULARY = 1536
"""Merging stops before this, when every word of the tasks is one token; the bound only guards against a runaway."""


def build(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train on `texts`, then add the tags and the chat tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    core.train_from_iterator(texts, trainer)
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (START, END, PAD)])
    # Not special, as with Qwen's thinking tags: decoding with `skip_special_tokens` has to keep the structure.
    core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in MULTIVERSE.tags])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def sample_texts(count: int = 3000, seed: int = 0) -> Iterator[str]:
    """Questions and both solutions of `count` training problems of every family, and the instruction sentences."""
    for _ in range(2):
        yield from (f" {sentence}" for sentence in INSTRUCTIONS.values())
        yield from (f"{role}\n" for role in ("system", "user", "assistant"))
    for family in CALCULATIONS:
        for problem, _ in zip(problems(family, seed=seed, split="train"), range(count), strict=False):
            yield problem.question
            for document in (problem.structured, problem.sequential):
                text = render(document)
                for tag in MULTIVERSE.tags:
                    text = text.replace(tag, "")
                yield text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    tokenizer = build(sample_texts())
    tokenizer.save_pretrained(out, save_jinja_files=False)
    print(f"{len(tokenizer)} tokens in {out}")


if __name__ == "__main__":
    main()
