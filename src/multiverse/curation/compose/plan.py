"""What is composed in a run: pools of the splits, questions about two things, numbers of documents."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from . import phrases
from .composer import Composed, Composer
from .config import ComposeConfig
from .pool import Pool
from .questions import Answered, History, Question
from .wordings import Wordings

_USES = 3  # of each answer, unless the number of documents is given
_TRIES = 20


def pool_of(answers: Sequence[Answered], *, held_out: bool, least: int) -> Pool:
    """The answers of a split: of validation those whose topic and wording are held out, if they have `least` topics."""
    if not held_out:
        own = [one for one in answers if not one.question.new_topic and not one.question.new_wording]
    else:
        new = [one for one in answers if one.question.new_topic]
        worded = [one for one in new if one.question.new_wording]
        enough = len({one.question.topic for one in worded if not one.question.single}) >= least
        # Without templates, or with one for all questions, only topics can be held out.
        own = worded if enough else new
    return Pool([one for one in own if not one.question.single], [one for one in own if one.question.single])


def composed_documents(pools: Mapping[bool, Pool], wordings: Wordings, config: ComposeConfig, seed: int) -> Iterator[Composed]:
    """The documents of both splits, those of training first."""
    sizes = dict.fromkeys(range(config.min_parts, config.max_parts + 1), 1.0)
    mean = sum(sizes) / len(sizes)
    parts = len(pools[False].parts)
    forked = _USES * parts / mean / max(1 - config.unforked, 0.1)
    count = config.num_documents if config.num_documents is not None else max(1, round(forked))
    kept = round(config.validation * count) if can_fork(pools[True], config) else 0
    for held_out, number in ((False, count - kept), (True, kept)):
        pool = pools[held_out]
        yield from compose(
            pool,
            wordings,
            config,
            count=number,
            seed=f"{seed}/{'validation' if held_out else 'train'}",
            sizes={size: weight for size, weight in sizes.items() if size <= len({one.question.topic for one in pool.parts})},
            held_out=held_out,
        )


def can_fork(pool: Pool, config: ComposeConfig) -> bool:
    return len({one.question.topic for one in pool.parts}) >= config.min_parts


def together(questions: Sequence[Question], wordings: Wordings, config: ComposeConfig, seed: int) -> list[Question]:
    """Further questions about two items at once, as many as are missing of requests that do not split."""
    items: dict[tuple[str, bool], list[Question]] = defaultdict(list)
    for one in questions:
        if one.template and not one.single and phrases.names_a_thing(one.template):
            key = (one.group, bool(one.new_topic))
            if all(one.item != other.item for other in items[key]):
                items[key].append(one)
    usable = [(key, own) for key, own in items.items() if len(own) > 1 and wordings.of("joint", held_out=key[1])]
    parts = sum(not one.single for one in questions)
    mean = (config.min_parts + config.max_parts) / 2
    documents = config.num_documents if config.num_documents is not None else _USES * parts / mean
    count = round(documents * config.unforked * config.unsplit) - (len(questions) - parts)
    rng = random.Random(f"together {seed}")
    found: dict[str, Question] = {}
    for number in range(count if usable else 0):
        (_, new_topic), own = rng.choices(usable, [len(own) for _, own in usable])[0]
        first, second = rng.sample(own, 2)
        text = rng.choice(wordings.of("joint", held_out=new_topic)).format(a=first.item, b=second.item)
        found.setdefault(
            text,
            Question(
                f"together-{number:06}",
                text,
                text,
                single=True,
                new_topic=new_topic,
                new_wording=new_topic,
                source=first.source,
                line=first.line,
            ),
        )
    return list(found.values())


def compose(
    pool: Pool, wordings: Wordings, config: ComposeConfig, *, count: int, seed: str, sizes: Mapping[int, float], held_out: bool
) -> Iterator[Composed]:
    """Documents from a pool, `count` at most: fewer where the pool gives no more that differ.

    Args:
        seed: of all choices.
        sizes: numbers of parts, with their weights.
        held_out: whether the documents are for validation.
    """
    rng = random.Random(seed)
    composer = Composer(pool, wordings, rng, forms=config.forms, held_out=held_out)
    seen: set[tuple[History, str]] = set()
    for _ in range(count):
        for _ in range(_TRIES):
            found = _one(composer, config, rng, sizes)
            if found is not None and (found.history, found.request) not in seen:
                seen.add((found.history, found.request))
                yield found
                break


def _one(composer: Composer, config: ComposeConfig, rng: random.Random, sizes: Mapping[int, float]) -> Composed | None:
    if not sizes or rng.random() < config.unforked:
        return composer.single(config.unsplit)
    found = composer.forked(rng.choices(list(sizes), list(sizes.values()))[0])
    if found is not None and rng.random() < config.follow_ups and (earlier := composer.earlier(found)) is not None:
        return composer.after(found, earlier)
    return found
