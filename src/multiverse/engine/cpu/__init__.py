"""What makes decoding fast on a CPU: kernels that read bfloat16 weights as they lie, and the modules that call them."""

from .attention import NativeBackend
from .build import kernels
from .layers import use_kernels
from .modules import NativeGatedMLP, NativeLinear, NativeRMSNorm
from .trim import EVERY as TRIM_EVERY
from .trim import trim

__all__ = ["TRIM_EVERY", "NativeBackend", "NativeGatedMLP", "NativeLinear", "NativeRMSNorm", "kernels", "trim", "use_kernels"]
