"""What makes decoding fast on a CPU: kernels that read bfloat16 weights as they lie, and the modules that call them."""

from .attention import NativeBackend
from .build import kernels
from .modules import NativeGatedMLP, NativeLinear, NativeRMSNorm, use_kernels

__all__ = ["NativeBackend", "NativeGatedMLP", "NativeLinear", "NativeRMSNorm", "kernels", "use_kernels"]
