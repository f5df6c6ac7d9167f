"""Structure by data flow: solutions whose steps carry their arithmetic become documents that fork, without a model."""
