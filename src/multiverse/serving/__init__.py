"""An OpenAI-compatible server with branches that can be watched. Needs the extra ``serve``, but is imported without it."""
