"""Fixtures of all tests: a byte-level tokenizer with the tags, and tiny random models of several families in folders."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as `multiverse.threads` has it, which comes after torch here
if os.environ.setdefault("MULTIVERSE_TEST_DEVICE", "cpu") != "cuda":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["TRITON_INTERPRET"] = "1"  # before the first import of Triton, which compiles or interprets its own functions

import pytest
import torch
from hypothesis import HealthCheck, settings
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from multiverse.structure import MULTIVERSE, Dialect, TokenDialect, resolve

DEVICE = os.environ["MULTIVERSE_TEST_DEVICE"]
"""`make gpu-check` sets ``cuda``; with any other value tests run on the CPU."""
cuda = pytest.mark.skipif(
    DEVICE != "cuda" or not torch.cuda.is_available(),
    reason="needs a CUDA GPU and MULTIVERSE_TEST_DEVICE=cuda, as `make gpu-check` sets",
)
"""Marks tests that need a GPU."""

torch.set_num_threads(1)  # tiny models gain nothing from more threads
# The ordinary suite draws the same examples everywhere and each time, so that it takes as long and finds the same; proofs draw
# others.
settings.register_profile("proofs", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ordinary", settings.get_profile("proofs"), derandomize=True, max_examples=50)

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def build_tokenizer(dialect: Dialect | None = MULTIVERSE, merges: Sequence[tuple[str, str]] = ()) -> PreTrainedTokenizerFast:
    """One token per byte, per tag and per merge, in the alphabet of byte-level tokenizers."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *(first + second for first, second in merges)]
    core = Tokenizer(models.BPE(vocab={piece: index for index, piece in enumerate(pieces)}, merges=[*merges]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<eos>", special=True, normalized=False)])
    if dialect is not None:
        core.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in dialect.tags])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
FAMILIES: dict[str, Callable[[int], Any]] = {
    "qwen2": lambda v: Qwen2ForCausalLM(Qwen2Config(vocab_size=v, **SHAPE)),
    "qwen3": lambda v: Qwen3ForCausalLM(Qwen3Config(vocab_size=v, head_dim=16, **SHAPE)),
    "llama": lambda v: LlamaForCausalLM(LlamaConfig(vocab_size=v, bos_token_id=None, **SHAPE)),
    "mistral": lambda v: MistralForCausalLM(MistralConfig(vocab_size=v, sliding_window=None, **SHAPE)),
}


def save_model(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Save a model and tokenizer, with random weights that are large enough for attention to change the output."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer()


@pytest.fixture(scope="session")
def tokens(tokenizer: PreTrainedTokenizerFast) -> TokenDialect:
    return resolve(tokenizer)


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> dict[str, Path]:
    """Folders of a tiny random model per family."""
    folders = {}
    for name, make in FAMILIES.items():
        torch.manual_seed(len(name))
        folders[name] = save_model(tmp_path_factory.mktemp(name), make(len(tokenizer)), tokenizer)
    return folders


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("ordinary" if config.getoption("markexpr") == "not slow" else "proofs")


def pytest_collection_finish() -> None:
    """Keep the garbage collector off what was imported and collected, which are millions of objects that stay.

    Whoever gives a model's memory back calls it, and would go through all of them for a second each time.
    """
    gc.collect()
    gc.freeze()


_seconds: Counter[str] = Counter()  # of each file's tests


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid.partition("::")[0]] += report.duration


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name the slowest files, where there are many: what takes a suite's time is seldom a single test."""
    if len(_seconds) > 10:
        slowest = [f"{name} {seconds:.0f} s" for name, seconds in _seconds.most_common(10)]
        terminalreporter.write_line(f"slowest files, of {sum(_seconds.values()):.0f} s in all: {', '.join(slowest)}")
