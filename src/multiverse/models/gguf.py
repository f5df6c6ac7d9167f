"""GGUF files as Hugging Face folders, converted once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import ModelError, first_line, require
from .fingerprint import fingerprint
from .places import Progress, cache_folder, made_whole

_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf\Z")


def only_file(folder: Path) -> Path | None:
    """The GGUF file of a folder that is no Hugging Face folder; `None` if it has none.

    Raises:
        ModelError: it has several.
    """
    if any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        return None
    files = sorted(folder.glob("*.gguf"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise ModelError(f"the folder {str(folder)!r} holds several GGUF files ({names}): name one of them")
    return files[0] if files else None


def folder_of(file: Path) -> Path:
    """Where the conversion of a file is, or will be; another if the file changes."""
    return cache_folder() / "gguf" / f"{file.stem}-{fingerprint(file)}"


def converted(file: Path, progress: Progress) -> Path:
    """The folder of a GGUF file, which is converted if it has not been before.

    Raises:
        ModelError: the file cannot be read, or transformers does not know its architecture.
        ExtraError: the library that reads GGUF is missing.
    """
    with made_whole(folder_of(file), progress) as out:
        if out is not None:
            convert(file, out, progress, origin=f"the file {file.name}")
    return folder_of(file)


def convert(file: Path, out: Path, progress: Progress, *, origin: str, license: str | None = None) -> None:  # noqa: A002
    """Write a GGUF file as a Hugging Face folder; in fp32 if all its matrices are, else dequantised to bf16.

    Args:
        out: an existing folder.
        origin: where the file is from, for the folder's card.
        license: its identifier; by default the one that the file states.

    Raises:
        ModelError: the file cannot be read, or transformers does not know its architecture.
        ExtraError: the library that reads GGUF is missing.
    """
    reader = open_reader(file)
    types = {tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1}
    require("accelerate", "gguf")  # transformers wants it for this
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    progress(f"converting {file.name}", 0, None)
    dtype = torch.float32 if types == {"F32"} else torch.bfloat16
    with _no_other_bars():
        try:
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            given = {"gguf_file": file.name, "dtype": dtype, **_unpacked()}
            model: Any = AutoModelForCausalLM.from_pretrained(file.parent, **given)
        except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
            raise ModelError(f"{str(file)!r} cannot be converted: {first_line(error)}") from error
        _save(model, tokenizer, out)
    license = license or _stated_license(reader)  # noqa: A001
    head = [f"license: {license}"] if license else []
    text = f"Converted by multiverse from {origin}; its matrices were {', '.join(sorted(types))}, and are {dtype} here."
    (out / "README.md").write_text("\n".join(["---", *head, "---", "", f"# {file.stem}", "", text, ""]))


def _unpacked() -> dict[str, Any]:
    """The argument that makes transformers unpack quantised weights; versions without it always do."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


def _save(model: Any, tokenizer: Any, out: Path) -> None:
    # The weights are plain numbers from here on, and nothing may say otherwise.
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


@contextmanager
def _no_other_bars() -> Iterator[None]:
    """Context in which transformers shows no progress bars, which would run into ours."""
    reading: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    from transformers.utils import logging

    shown, theirs = logging.is_progress_bar_enabled(), getattr(reading, "tqdm", None)
    logging.disable_progress_bar()
    if theirs is not None:
        reading.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        if theirs is not None:
            reading.tqdm = theirs
        if shown:
            logging.enable_progress_bar()


def open_reader(file: Path) -> Any:
    """The file's reader.

    Raises:
        ModelError: the file cannot be read.
        ExtraError: the library that reads GGUF is missing.
    """
    gguf = require("gguf", "gguf")
    if _SPLIT.search(file.name):
        raise ModelError(f"{str(file)!r} is one part of a split model: join the parts first, with  llama-gguf-split --merge")
    try:
        return gguf.GGUFReader(file)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise ModelError(f"{str(file)!r} cannot be read as GGUF: {first_line(error)}") from error


def _stated_license(reader: Any) -> str | None:
    field = reader.get_field("general.license")
    return str(field.contents()) if field is not None else None
