"""Every way of forking and joining on the same tasks, at the same size, on the same machine: `make paper`."""
