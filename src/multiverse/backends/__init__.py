"""Everything that depends on the device: attention, kernels, fused and packed layers, CUDA graphs, asynchronous scheduling.

    base.py             `Backend`, the interface to a device; `ForwardContext`, the attention's view of a forward
    batch.py            `Batch`: the rows of a forward, as the engine hands them over
    torch.py            wherever torch runs: attention over padded groups (`buckets.py`)
    cpu/                bfloat16 kernels compiled on first use, linear layers packed for oneDNN
    cuda/               Triton kernels: attention over tiles, fused layers; CUDA graphs
    tensor_parallel.py  one model over several processes (`rank.py` is the others' side)
    fused_layers.py     decoder layers on a kernel backend, of the CPU or of CUDA

`select` chooses the backend once, when a model is loaded. No other part of the engine depends on the device.
"""

from .select import find_device, on_gpu, release, select, select_for

__all__ = ["find_device", "on_gpu", "release", "select", "select_for"]
