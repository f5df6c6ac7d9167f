"""Fork and join over a stock engine: any server with OpenAI's ``/v1/completions``, driven from here. No torch.

The tree of a generation, its grammar, limits, events and result are the engine's own (`engine.Request`); what a forward does
there, requests over HTTP do here: one per open branch, over the text that the branch reads, joined by text.
"""
