"""Tiny random models with the conventions of the published families: a Qwen-type tokenizer, its template, its tags in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from tests.conftest import SHAPE, save_model

_PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Qwen's pre-tokenisation: each digit by itself, punctuation with the line ends that follow it."""
_MERGES = [("Ċ", "Ċ"), (".", "Ċ"), (":", "Ċ"), ("}", "Ċ"), (".", "ĊĊ"), ("Ġ", "a"), ("s", "t"), ("e", "p"), ("st", "ep")]

QWEN25 = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. "
    "You are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


def pairs(*words: str) -> list[str]:
    """The tags of these words, each opening before its closing."""
    return [tag for word in words for tag in (f"<{word}>", f"</{word}>")]


TAGS = {
    "multiverse": pairs("Think", "Parallel", "Goal", "Outline", "Path", "Conclusion"),
    "npr": pairs("guideline", "plan", "step", "takeaway"),
    "threadweaver": pairs("Think", "Parallel", "Outlines", "Outline", "Thread", "Conclusion"),
}
"""The tokens that each family has added, in its order."""


def qwen_tokenizer(*families: str) -> PreTrainedTokenizerFast:
    """A Qwen-type tokenizer with the tags of these families behind its own control tokens."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(first + second for first, second in _MERGES)]
    core = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=_MERGES))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    core.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in control])
    hybrid = families != ("multiverse",)
    if hybrid:
        core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in pairs("think")])
    for family in families:
        core.add_special_tokens([AddedToken(tag, special=True, normalized=False) for tag in TAGS[family]])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = QWEN3 if hybrid else QWEN25
    return tokenizer


def stand_in(folder: Path, *families: str, **noted: Any) -> Path:
    """The folder of a tiny random model with the tokenizer of these families, and these values in its configuration."""
    tokenizer = qwen_tokenizer(*families)
    torch.manual_seed(len(folder.name))
    rows = -(-len(tokenizer) // 64) * 64
    model = Qwen3ForCausalLM(Qwen3Config(vocab_size=rows, head_dim=16, **{**SHAPE, "num_hidden_layers": 1}))
    for name, value in noted.items():
        setattr(model.config, name, value)
    return save_model(folder, model, tokenizer)
