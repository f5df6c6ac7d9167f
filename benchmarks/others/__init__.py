"""Other engines, each in an environment of its own and talked to over JSON lines: they pin their own torch and transformers."""
