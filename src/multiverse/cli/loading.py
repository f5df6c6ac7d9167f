"""Load a model without letting the libraries below talk over our own output."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelError, MultiverseError

if TYPE_CHECKING:
    from ..llm import LLM


def open_model(model: str | None, *, device: str = "auto", dtype: str = "auto", **options: Any) -> LLM:
    """The model, loaded; a note on a terminal's stderr says what the wait is for.

    Args:
        options: of the engine, as `LLM` takes them.

    Raises:
        ModelError: it cannot be found, loaded or joined, or the device is not there.
    """
    with quietly(model):
        import torch

        from ..llm import LLM

        if device.startswith("cuda") and not torch.cuda.is_available():
            raise ModelError(f"device={device!r} asks for CUDA, which torch does not find here: use --device cpu")
        return LLM(model, device=device, dtype=dtype, **options)


def open_tokenizer(model: str | None) -> Any:
    """A model's tokenizer alone; `None` is that of multiverse-mini.

    Raises:
        ModelError: it cannot be found or loaded.
    """
    model = str(files("multiverse") / "models" / "mini") if model is None else model
    folder = Path(model).expanduser()
    if not folder.is_dir() and (folder.is_absolute() or model.startswith((".", "~")) or folder.exists()):
        raise ModelError(f"the model folder {model!r} does not exist: give a folder with a tokenizer, or a hub id")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import AutoTokenizer

        _hush()
        with _told(f"the tokenizer of {model!r} could not be loaded: give a folder that has one, or a hub id"):
            return AutoTokenizer.from_pretrained(str(folder) if folder.is_dir() else model)


@contextmanager
def quietly(name: str | None) -> Iterator[None]:
    """Load a model or a tokenizer in here: a note on a terminal's stderr says what the wait is for, and nothing else talks.

    Raises:
        ModelError: for whatever the libraries below raise over a model's files.
    """
    from rich.console import Console

    name = name if name is not None else "multiverse-mini"
    # Only on a terminal: a log has no use for a spinner.
    with Console(stderr=True, quiet=not sys.stderr.isatty()).status(f"loading {name}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _hush()
        with _told(f"the model {name!r} could not be loaded"):
            yield


@contextmanager
def _told(problem: str) -> Iterator[None]:
    """Whatever the libraries below raise over a model's files, from a wrong field to a torn file, is about the model."""
    try:
        yield
    except MultiverseError:
        raise
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"{problem} ({reason or type(error).__name__})") from error


def _hush() -> None:
    from transformers.utils import logging as transformers_logging

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
