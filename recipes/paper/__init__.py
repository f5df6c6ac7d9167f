"""Comparison of ways to fork and join on the same tasks, at the same model size, on the same machine: `make paper`."""
