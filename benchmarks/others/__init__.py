"""Other engines, each in its own environment because it pins torch and transformers, driven over JSON lines."""
