"""The CUDA backend (`backend.py`): attention over tiles (`plan.py`, `attention.py`), fused layers (`layers.py`), CUDA graphs.

Nothing here imports Triton before it is used; without a GPU the kernels run in Triton's interpreter, for tests.
"""
