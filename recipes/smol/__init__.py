"""The recipe of multiverse-smol: SmolLM2-135M-Instruct, taught to fork by its own answers."""
