"""What models know about structure before they show it: the probing test and the prompting test."""
