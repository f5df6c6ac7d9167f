"""Record what a user of a checkout sees, and compare two recordings.

A checkout is used only through its command line and its HTTP server, in subprocesses with ``PYTHONPATH=SOURCE/src``, so the
same script records a checkout from before a change and one from after it. Command-line options and YAML keys that were renamed
are looked up in the tables of `checkout` and `training`. Recorded are:

- ``streams``: raw bodies of 200 answers of ``multiverse serve`` with the embedded model, asked one after the other: chats and
  completions, greedy and seeded, plain, with branch events, ``n`` of 2, stop strings, log-probabilities, limits, not streamed;
- ``commands``: the output of every command that has ``--json``;
- ``evaluation``: figures of small evaluation runs;
- ``curation``: the files of a curation run against the scripted annotator of the checkout's own tests;
- ``training``: the loss of each of 20 steps.

Ids, times, durations and paths are masked. Compared are bytes first; what differs is compared again after normalising: of
streams, consecutive deltas of one choice are merged and choices are taken apart (how events share a chunk and how choices
interleave depends on timing) and log-probabilities may differ by 1e-5 (the samples of one request share a forward or do not);
of JSON, renamed keys and the order of keys are ignored. The report counts what was the same only in this sense.

    python -m benchmarks.recordings record OUT --source CHECKOUT
    python -m benchmarks.recordings compare BEFORE AFTER
"""
