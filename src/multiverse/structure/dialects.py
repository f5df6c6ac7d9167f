"""The dialects that are known by name."""

from __future__ import annotations

from dataclasses import replace

from .dialect import Dialect, Tag

MULTIVERSE = Dialect(
    name="multiverse",
    think=Tag("<Think>", "</Think>"),
    block=Tag("<Parallel>", "</Parallel>"),
    goal=Tag("<Goal>", "</Goal>"),
    outline=Tag("<Outline>", "</Outline>"),
    path=Tag("<Path>", "</Path>"),
    conclusion=Tag("<Conclusion>", "</Conclusion>"),
    released=(("labels", "kept"), ("counts", "kept"), ("goal", "kept"), ("conclusion", "kept")),
)
"""The paper's twelve tags (arXiv 2506.09991); the default everywhere."""

MULTIVERSE_ANSWER = replace(MULTIVERSE, name="multiverse-answer", blocks="answer")
"""The paper's twelve tags, with blocks in the answer: its paths are what the user reads."""

NPR = Dialect(
    name="npr",
    think=None,
    block=None,
    goal=Tag("<guideline>", "</guideline>"),
    outline=Tag("<plan>", "</plan>"),
    path=Tag("<step>", "</step>"),
    conclusion=Tag("<takeaway>", "</takeaway>"),
    outline_sep="",
    block_sep="\n\n",
    white_space="free",
    after_path="free",
    nests=False,
    max_paths=5,
    answer_form="boxed",
    released=(("labels", "kept"), ("counts", "kept"), ("width", "end"), ("path", "kept")),
)
"""Native Parallel Reasoner: no outer tag, outlines on one line, a blank line behind a block.

Its engine reads the numbers of plans as they are written, forks at most five, and ends the generation if there are more, or
none.
"""

THREADWEAVER = Dialect(
    name="threadweaver",
    think=Tag("<think>", "</think>"),
    block=Tag("<Parallel>", "</Parallel>"),
    goal=Tag("<Outlines>", "</Outlines>"),
    outline=Tag("<Outline>", "</Outline>"),
    path=Tag("<Thread>", "</Thread>"),
    conclusion=None,
    outline_sep="",
    join_sep="\n",
    white_space="free",
    after_path="absent",
    closes_block=False,
    nests=False,
    max_paths=50,
    answer_form="boxed",
    join="text",
    released=(("labels", "once"), ("nesting", "text"), ("width", "kept"), ("space", "kept"), ("thinking", "kept")),
)
"""ThreadWeaver: nothing stands between threads, there is no conclusion, and the model closes the block behind a line end. It
has learned to read its threads in a line.

Its orchestrator reads the numbers of outlines as they are written, each once, and knows no block in a thread.
"""

THREADWEAVER_CONCLUSION = replace(
    THREADWEAVER,
    name="threadweaver-conclusion",
    conclusion=Tag("<Conclusion>", "</Conclusion>"),
    optional_conclusion=True,
)
"""ThreadWeaver's variant in which a conclusion is forced at the join."""

MULTIVERSE_COMPACT = Dialect(
    name="multiverse-compact",
    think=Tag("<Think>", "</Think>"),
    block=None,
    goal=Tag("<fork>", "<run>"),
    outline=Tag("<part>", ""),
    path=Tag("<path>", "</path>"),
    conclusion=Tag("<join>", "</join>"),
    sep="",
    label_end="",
    labels="number",
    blocks="answer",
)
"""As few tokens a block as can be: a path refers to its outline by number alone, and nothing stands between tags and texts.

    Two questions.<fork><part>1 Bread<part>2 Magnets<run><path>1 It is baked.</path><path>2 They pull.</path><join>Done.</join>

The model chooses one tag for each outline, one that forks, one at the end of each path and one at the end of the conclusion;
the rest is forced.
"""

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (MULTIVERSE, MULTIVERSE_ANSWER, MULTIVERSE_COMPACT, NPR, THREADWEAVER, THREADWEAVER_CONCLUSION)
}
