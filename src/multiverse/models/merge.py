"""Write an adapter and its base as one model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import mkdtemp

from ..errors import writing
from .adapter import SETTINGS, WEIGHTS
from .resolve import BASE
from .weights import load_weights, read_config

_NOT_COPIED = {SETTINGS, WEIGHTS, "config.json", "generation_config.json"}


def write_merged(adapter: Path, out: Path, dtype: str = "auto") -> None:
    """Write the merged model, with everything else that the adapter's folder holds; whole or not at all.

    Args:
        adapter: the adapter's folder.
        out: the folder to write, which does not exist or is empty.
        dtype: of the weights; ``auto`` is the one that the adapter's folder names.

    Raises:
        ModelError: the adapter or its base cannot be read.
        DiskError: the disk is full.
    """
    model = load_weights(str(adapter), dtype)
    _, tokenizer = read_config(str(adapter))
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with writing(out):
            model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
            for file in adapter.iterdir():
                if file.is_file() and file.name not in _NOT_COPIED and not (partial / file.name).exists():
                    shutil.copyfile(file, partial / file.name)
        config = json.loads((partial / "config.json").read_text())
        config.pop(BASE, None)
        (partial / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        partial.chmod(0o755)
        partial.replace(out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
