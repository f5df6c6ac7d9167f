"""How fast a model is on this machine, in branches and in a line, and beside other engines (`multiverse bench`)."""
