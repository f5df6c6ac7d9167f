"""What the work in a rollout is, and what the peers' models were paid for without doing any."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from multiverse.engine.generation import Usage
from multiverse.structure import DIALECTS, Block, Document, Layout, encode
from multiverse.structure.shape import word_tokens
from multiverse.training.rl.rewards import Reward, Rewards
from multiverse.training.rl.rewards.forks import read_work
from multiverse.training.rl.rollout import Rollout, Scores
from tests.training.rl.answers import MIA, QUESTION, TOM, forked, group, rollout, serial

SHAPED = (
    Reward("correct"),
    Reward("acceleration", weight=0.5),
    Reward("well_formed", weight=0.2, alternate=[2, 10]),
    Reward("forked", weight=0.1, anneal_steps=100),
    Reward("finished_paths", weight=0.1, anneal_steps=100),
)
OWN = (Reward("correct"), Reward("acceleration", weight=0.5, baseline="own"))
PADDING = " ".join(["hmm let me think about this once more"] * 6)


def scores(*rollouts: Rollout, rewards: tuple[Reward, ...] = SHAPED, step: int = 0) -> list[Scores]:
    with Rewards(rewards) as judge:
        (judged,) = judge.judge([group(*rollouts)], step)
        return list(judged.scores)


def test_work_of_a_fork() -> None:
    work = read_work(QUESTION, rollout(forked(MIA, TOM)))
    (fork,) = work.forks
    assert [path.new for path in fork.paths] == [1.0, 1.0]
    assert (work.parallel, work.well_formed) == (True, True)
    # 3 + 14 words of the trunk's text, outlines and tags; both paths have a tag, a label and its end beside their words.
    longest = max(path.tokens for path in fork.paths)
    total = rollout(forked(MIA, TOM)).generation.usage.total_tokens
    assert work.useful == total
    assert work.critical == total - min(path.tokens for path in fork.paths)
    assert longest == len(TOM.split()) + 3


def test_serial_collapse() -> None:
    """A right answer with a fork that saves time is worth more than one in a line, and that more than any wrong one."""
    mia, tom = (" ".join(f"{name} takes {number} then" for number in range(8)) for name in ("Mia", "Tom"))
    fork, line, wrong = rollout(forked(mia, tom)), rollout(serial(mia, tom)), rollout(forked(mia, tom, answer="40"))
    usages = [one.generation.usage for one in (fork, line)]
    assert [(usage.critical_path_tokens, usage.total_tokens) for usage in usages] == [(59, 94), (72, 72)]
    rewards = (Reward("correct"), Reward("acceleration", weight=0.3, cap=0.3))
    found = scores(fork, line, wrong, rewards=rewards)
    assert [score.total for score in found] == pytest.approx([1 + 0.3 * (1 - 59 / 72), 1.0, 0.0])
    assert [score.correct for score in found] == [True, True, False]
    # What keeps forks alive while they do not save anything yet: in two of ten steps.
    shaped = (Reward("correct"), Reward("well_formed", weight=0.2, alternate=[2, 10]))
    for step, worth in ((0, 1.0), (7, 1.0), (8, 1.2), (9, 1.2)):
        assert [score.total for score in scores(fork, line, wrong, rewards=shaped, step=step)] == [worth, 1.0, 0.0]


@pytest.mark.parametrize("rewards", [SHAPED, OWN])
def test_wrong_but_parallel_never_beats_right_and_serial(rewards: tuple[Reward, ...]) -> None:
    for step in range(10):
        line, wrong = scores(rollout(serial(MIA, TOM)), rollout(forked(MIA, TOM, answer="40")), rewards=rewards, step=step)
        assert line.total >= 1.0 > wrong.total


@pytest.mark.parametrize(
    ("why", "document"),
    [
        ("one path", forked(f"{MIA} {TOM}")),
        ("empty paths", forked("", "", before=f"{MIA} {TOM}")),
        ("one path and empty ones", forked(f"{MIA} {TOM}", "", "")),
        ("the same path twice", forked(f"{MIA} {TOM}", f"{MIA} {TOM}")),
        ("the same path in other case and marks", forked(f"{MIA} {TOM}", f"{MIA} {TOM}".upper().replace(".", "!"))),
        ("what the trunk has said", forked(MIA, TOM, before=f"Let us look. {MIA} {TOM}")),
        (
            "what the question says",
            forked("Mia starts with 7, add 5, double.", "Tom starts with 12, take 4, add 9.", before=MIA),
        ),
        ("nothing but the outline", forked("part 1", "part 2", before=f"{MIA} {TOM}")),
        ("a path of padding", forked(f"{MIA} {TOM}", PADDING)),
    ],
)
def test_forks_that_are_no_work_do_not_pay(why: str, document: Document) -> None:
    """Even compared with nothing but their own tokens, where ThreadWeaver's term pays for most of them."""
    made = rollout(document)
    assert made.generation.answer == "41"
    (own,) = scores(made, rewards=(*OWN, Reward("well_formed", weight=0.2), Reward("forked", weight=0.1)))
    assert own.parts == {"correct": 1.0, "acceleration": 0.0, "well_formed": 0.0, "forked": 0.0}, why
    plain, shaped = scores(rollout(serial(MIA, TOM)), made, rewards=SHAPED[:3])
    assert shaped.total <= plain.total, why


def test_the_peers_term_pays_for_the_same_path_twice() -> None:
    """What is guarded against: 1 - longest / total of two equal paths is far above 0."""
    usage = rollout(forked(f"{MIA} {TOM}", f"{MIA} {TOM}")).generation.usage
    assert 1 - usage.critical_path_tokens / usage.total_tokens > 0.3


def test_padding_outside_the_longest_path_does_not_pay() -> None:
    long = " ".join(f"and {number} is next" for number in range(20))
    lean, padded = rollout(forked(MIA, long)), rollout(forked(f"{MIA} {PADDING}", long))
    assert lean.generation.usage.critical_path_tokens == padded.generation.usage.critical_path_tokens
    first, second = (read_work(QUESTION, one) for one in (lean, padded))
    # Of six repetitions the first is new, and so is the step to the second.
    assert padded.generation.usage.total_tokens - lean.generation.usage.total_tokens == 48
    assert second.useful - first.useful < 12
    worth = scores(lean, padded)
    assert worth[1].parts["acceleration"] <= worth[0].parts["acceleration"]


def test_padding_that_nobody_has_said_does_not_pay_beside_another_right_answer() -> None:
    """Words that are new cannot be told from work, but they are no way to be faster than the shortest right answer."""
    words = " ".join(f"word{number}" for number in range(12))
    lean = rollout(forked(MIA, f"{TOM} That is 17 in the end, as he has said before us all here."))
    padded = rollout(forked(f"{MIA} {words}", f"{TOM} That is 17 in the end, as he has said before us all here."))
    assert lean.generation.usage.critical_path_tokens == padded.generation.usage.critical_path_tokens
    first, second = scores(lean, padded, rewards=(Reward("correct"), Reward("acceleration", cap=1.0, weight=0.1)))
    assert first.parts["acceleration"] == second.parts["acceleration"] > 0
    alone = scores(padded, rewards=(Reward("correct"), Reward("acceleration", cap=1.0, weight=0.1)))[0]
    assert alone.parts["acceleration"] > second.parts["acceleration"]


def test_a_spurious_fork_does_not_pay_where_the_line_is_as_fast() -> None:
    """Checking again in new words: more work than the line does, and no faster."""
    again = "Once more from the end: 41 less 17 leaves 24, half of which gives 12, which it was."
    line, fork = scores(rollout(serial(MIA, TOM)), rollout(forked(f"{MIA} {TOM}", again)), rewards=SHAPED[:2])
    assert fork.parts["acceleration"] == 0.0
    assert fork.total == line.total == 1.0


def test_paths_that_were_cut_off_do_not_pay() -> None:
    cut, whole = rollout(forked(MIA, TOM), closed=(("2", "length"),)), rollout(forked(MIA, TOM))
    first, second = scores(cut, whole, step=9)
    assert first.parts == {"correct": 1.0, "acceleration": 0.0, "well_formed": 0.0, "forked": 0.0, "finished_paths": 0.5}
    assert second.parts["well_formed"] == second.parts["finished_paths"] == 1.0


@pytest.mark.parametrize("reason", ["length", "deadline", "malformed", "error", "abort"])
def test_what_did_not_end_by_itself_is_wrong(reason: str) -> None:
    made = rollout(forked(MIA, TOM), finish_reason=reason)
    (found,) = scores(made, step=9)
    assert found.correct is False
    assert found.parts["acceleration"] == found.parts["well_formed"] == 0.0
    assert not found.faults


def test_an_answer_that_was_closed_for_its_budget_is_read_and_gets_no_bonus() -> None:
    (found,) = scores(rollout(forked(MIA, TOM), finish_reason="budget"), rewards=SHAPED[:2])
    assert (found.correct, found.parts["acceleration"], found.total) == (True, 0.0, 1.0)


def test_a_text_that_does_not_parse_has_no_forks() -> None:
    work = read_work(QUESTION, rollout(forked(MIA, TOM), tree=None))
    assert (work.forks, work.whole, work.parallel) == ((), False, False)


def test_two_blocks_with_the_same_labels_and_nested_ones() -> None:
    inner = Block(("one", "two"), (("3 and 4 make seven then",), ("5 and 6 make eleven then",)), "18 in all.")
    document = Document(
        (
            "First.",
            Block(("a", "b"), (("Here:", inner, "So 18 it is."), (MIA,)), "42."),
            "Second.",
            Block(("c", "d"), ((TOM,), (TOM,)), "41."),
        ),
        "Answer: 41",
    )
    made = rollout(document)
    work = read_work(QUESTION, made)
    first, second = work.forks
    assert [path.counts for path in first.paths] == [True, True]
    assert [path.counts for path in first.paths[0].blocks[0].paths] == [True, True]
    assert [path.counts for path in second.paths] == [True, False]
    assert (work.parallel, work.well_formed) == (True, False)
    assert sum(path.total for fork in work.forks for path in fork.paths) == sum(map(bool, made.generation.branches))
    assert work.critical == made.generation.usage.critical_path_tokens
    # The second block is no work beside its longest path.
    assert work.useful == made.generation.usage.total_tokens - second.paths[1].total


def test_every_path_of_any_document_is_found_in_its_tokens_and_in_its_tree() -> None:
    rng = Random(0)
    for number in range(60):
        document = random_document(rng)
        for dialect in (DIALECTS["multiverse"], replace(DIALECTS["multiverse"], positions="released"), DIALECTS["npr"]):
            if dialect.name == "npr":  # no blocks in others, and no tags around the thinking
                document = Document(("So", random_block(rng, 1), "so", random_block(rng, 1), "41"))
            tokens = word_tokens(dialect)
            layout = encode(document, tokens).layout
            made = rollout(document, branches=layout.labels, usage=usage_of(layout))
            work = read_work(QUESTION, made)
            blocks = list(work.blocks())
            assert len(blocks) == len(list(document.blocks())), (number, dialect.name)
            in_paths = sum(map(bool, layout.labels))
            assert sum(path.total for fork in work.forks for path in fork.paths) == in_paths
            assert layout.critical_path() <= work.useful <= len(layout)
            # As many separators as blocks lie beside others in the released layout, and none in ours.
            chain = len(layout) - in_paths + sum(fork.longest.chain for fork in work.forks)
            assert 0 <= chain - layout.critical_path() <= (3 * len(blocks) if dialect.positions == "released" else 0)


def random_document(rng: Random) -> Document:
    return Document(("So", random_block(rng, 3), "so", random_block(rng, 1)), "Answer: 41")


def random_block(rng: Random, depth: int) -> Block:
    def text() -> str:
        return " ".join(rng.choice(("so", "7", "it", "is", "more")) for _ in range(rng.randint(1, 6)))

    def block(depth: int) -> Block:
        width = rng.randint(1, 3)
        return Block(tuple(text() for _ in range(width)), tuple(body(depth - 1) for _ in range(width)), text())

    def body(depth: int) -> tuple[str | Block, ...]:
        if not depth or rng.random() < 0.5:
            return (text(),) if rng.random() < 0.9 else ()
        return (text(), block(depth), text()) if rng.random() < 0.5 else (text(), block(depth))

    return block(depth)


def usage_of(layout: Layout) -> Usage:
    return Usage(0, len(layout), layout.critical_path(), layout.critical_path_steps(), 0.0)


def test_words_without_spaces() -> None:
    one, other = "米娅有七个苹果再加五个翻倍是二十四", "汤姆有十二个苹果拿走四个再加九个是十七"
    assert read_work(QUESTION, rollout(forked(one, other))).parallel
    assert not read_work(QUESTION, rollout(forked(one, one))).parallel


def test_acceleration_is_capped_and_cannot_outweigh_correctness() -> None:
    long = [" ".join(f"{name}{number} is new" for number in range(30)) for name in "abcdef"]
    (found,) = scores(rollout(forked(*long)), rewards=OWN)
    assert found.parts["acceleration"] == 0.2
    assert found.total == pytest.approx(1.1)
