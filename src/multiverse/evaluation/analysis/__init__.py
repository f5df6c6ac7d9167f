"""Analysis: the probing test (hidden states before a fork) and the prompting test (asking for the format)."""
