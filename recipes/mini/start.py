"""Make a model of the mini's shape with random weights, and its tokenizer.

python -m recipes.mini.start runs/mini/start
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from .model import SHAPES, build_model
from .tokenizer import build, sample_texts


def write(folder: Path, shape: str = "mini", seed: int = 0, texts: int = 3000) -> None:
    """Write the folder; the same seed gives the same weights."""
    tokenizer = build(sample_texts(texts))
    torch.manual_seed(seed)
    build_model(SHAPES[shape], tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="mini")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    disable_progress_bar()
    write(options.folder, options.shape, options.seed)
    print(f"a model with random weights in {options.folder}")


if __name__ == "__main__":
    main()
