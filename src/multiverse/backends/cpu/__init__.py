"""The CPU backend (`backend.py`): native kernels (`kernels.cpp`, `build.py`), modules that call them, packed linears."""
