"""Fine-tuning from an autoregressive start: a small model that has only ever seen sequential text learns to fork."""
