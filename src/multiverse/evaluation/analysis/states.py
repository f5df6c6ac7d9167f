"""Hidden states of a plain transformers model at the sites of marked texts.

Shape legend: S sites, K layers (the embeddings are layer 0), D width of the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...attention.dense import dense_inputs
from ...engine.model import load
from ...errors import ModelError
from .sites import Marked


class Reader(NamedTuple):
    """A model for single forwards: no engine, attention of transformers.

    Attributes:
        path: the folder or hub id that was loaded.
        longest: most tokens of a text.
    """

    path: str
    model: Any
    tokenizer: Any
    longest: int

    @torch.inference_mode()
    def states(self, marked: Marked) -> Tensor:
        """`state_SKD`, float32 on CPU: the hidden state at each site after each layer.

        One forward with the dense mask and the positions of the text's layout, as in training.

        Raises:
            ModelError: the text is too long for the model.
        """
        if len(marked.token_ids) > self.longest:
            raise ModelError(f"a text has {len(marked.token_ids)} tokens, and {self.path!r} takes {self.longest} at most here")
        inputs = dense_inputs(marked.token_ids, marked.layout, self.model.device)
        output = self.model(**inputs, use_cache=False, output_hidden_states=True, logits_to_keep=1)
        index_S = torch.tensor([site.token for site in marked.sites], dtype=torch.long, device=self.model.device)
        return torch.stack([layer_1LD[0, index_S] for layer_1LD in output.hidden_states], dim=1).float().cpu()


def open_reader(path: str | Path | None = None, *, dtype: str = "auto", device: str = "auto", quantize: str = "auto") -> Reader:
    """Load a local folder or a hub id; `None` is the embedded multiverse-mini.

    Raises:
        ModelError: it cannot be found or loaded, or has no attention that takes a mask of ours.
    """
    loaded = load(path, dtype=dtype, device=device, quantize=quantize, packed_linears=False)
    loaded.model.set_attn_implementation("sdpa")  # takes a bool mask
    config = loaded.model.config.get_text_config()
    # Our mask replaces that of a sliding window, so texts must fit into the window.
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) if sliding else None
    longest = min(loaded.max_positions, window) if window else loaded.max_positions
    return Reader(loaded.path, loaded.model, loaded.tokenizer, longest)
