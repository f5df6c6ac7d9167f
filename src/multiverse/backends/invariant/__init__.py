"""Batch-invariant computation (``deterministic=True``): a row's result has the same bits whatever else is computed with it.

    plan.py         the order in which a row reads keys and values, cut into chunks at fixed places. No torch
    attention.py    attention over these chunks, in plain torch; `cpu/` and `cuda/` have kernels for the same plan
    linears.py      linear layers computed for those numbers of rows only that give the same bits
    modules.py      a transformers model's linear layers, activations and rotary embeddings replaced
    check.py        the proof when a model is loaded: one text in several batches

Floating-point sums depend on their order, and the usual kernels choose the order by the number of rows or by the length of the
padded group (He et al. 2025, https://thinkingmachines.ai/blog/defeating-nondeterminism-in-llm-inference).
"""
