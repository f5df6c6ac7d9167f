"""The recipe of multiverse-mini: tokenizer, shape, mixture and training loop."""
