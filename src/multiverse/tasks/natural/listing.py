"""Listing: several small questions that have nothing to do with each other, each with an answer that can be checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multiverse.structure.tree import Block

from .. import facts
from ..problem import Problem, forked
from ..problem import listing as joined
from ..rules import ListRule
from ..wording import NUMBER_WORDS, TERMS, Draws

WIDTHS = (2, 3, 4, 5, 6, 7, 8)

_Answer = Callable[[str], tuple[str, tuple[str, ...]]]
_Items = Callable[[Draws, int], Sequence[str]]


@dataclass(frozen=True)
class Part:
    """One question.

    Attributes:
        item: what is asked about.
        outline: the question as an outline.
        question: the question by itself.
        working: the sentence that answers it.
        answers: what is right; the first is the one in the solution.
    """

    item: str
    outline: str
    question: str
    working: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Kind:
    """A kind of question.

    Attributes:
        outline: of one question, with ``{item}``.
        asks: the question by itself.
        together: all questions of this kind in one sentence, with ``{items}``.
        answer: the working that leads to the answer, and all right answers.
        items: draws what is asked about.
    """

    outline: str
    asks: tuple[str, ...]
    together: tuple[str, ...]
    answer: _Answer
    items: _Items

    def parts(self, draws: Draws, count: int) -> list[Part]:
        """So many questions of this kind."""
        ask = draws.phrase(self.asks)
        return [
            Part(item, self.outline.format(item=item, an=_an(item)), ask.format(item=item, an=_an(item)), *self.answer(item))
            for item in self.items(draws, count)
        ]


def _an(item: str) -> str:
    return f"an {item}" if item[0] in "aeiou" else f"a {item}"


def _table(table: Sequence[tuple[str, str]], sentence: str) -> tuple[_Answer, _Items]:
    """How a kind answers and what it asks about, from a table of facts."""
    known = {item: tuple(answers.split("/")) for item, answers in table}

    def answer(item: str) -> tuple[str, tuple[str, ...]]:
        return sentence.format(item=item, answer=known[item][0]), known[item]

    return answer, lambda draws, count: draws.words([*known], count)


def _rhyme(item: str) -> tuple[str, tuple[str, ...]]:
    group = next(group for group in facts.RHYMES if item in group)
    others = tuple(word for word in group if word != item)
    return f"A word that rhymes with {item} is {others[0]}.", others


def _length(item: str) -> tuple[str, tuple[str, ...]]:
    counted = " ".join(f"{letter}{number}" for number, letter in enumerate(item, 1))
    return f"Counting the letters of {item}: {counted}. That makes {len(item)}.", (str(len(item)),)


def _spelling(item: str) -> tuple[str, tuple[str, ...]]:
    spelled = "-".join(item)
    return f"The word {item} is spelled {spelled}.", (spelled, spelled.upper(), " ".join(item))


def _repeated(item: str) -> tuple[str, tuple[str, ...]]:
    word, _, letter = item.partition("/")
    marks = " ".join(one.upper() if one == letter else one for one in word)
    return f"In {word} the letter {letter} is marked: {marks}. That makes {word.count(letter)}.", (str(word.count(letter)),)


def _product(item: str) -> tuple[str, tuple[str, ...]]:
    a, _, b = item.split()
    value = int(a) * int(b)
    return f"{a}*{b}={value}.", (str(value),)


def _sum(item: str) -> tuple[str, tuple[str, ...]]:
    a, _, b = item.split()
    value = int(a) + int(b)
    return f"{a}+{b}={value}.", (str(value),)


def _sums(draws: Draws, count: int) -> list[str]:
    first, last = draws.span(TERMS)
    pairs = [f"{a} plus {b}" for a in range(first, last + 1) for b in range(first, last + 1)]
    return draws.rng.sample(pairs, count)


def _products(draws: Draws, count: int) -> list[str]:
    factors = {"train": range(2, 10), "heldout": range(10, 13), "all": range(2, 13)}[draws.numbers]
    return draws.rng.sample([f"{a} times {b}" for a in factors for b in range(2, 10)], count)


def _letters(draws: Draws, count: int) -> list[str]:
    # The most frequent letter, the earliest of several, so that there is something to count.
    return [f"{word}/{max(word, key=word.count)}" for word in draws.words(facts.SPELLED, count)]


KINDS: dict[str, Kind] = {
    "opposite": Kind(
        "opposite of {item}",
        ("What is the opposite of {item}?", "Name the opposite of {item}.", "Which word means the opposite of {item}?"),
        ("What are the opposites of {items}?", "Give the opposite of each word: {items}.", "Find the contrary of {items}."),
        *_table(facts.OPPOSITES, "The opposite of {item} is {answer}."),
    ),
    "capital": Kind(
        "capital of {item}",
        ("What is the capital of {item}?", "Which city is the capital of {item}?", "Name the capital city of {item}."),
        (
            "What are the capitals of {items}?",
            "Name the capital city of each country: {items}.",
            "Which cities are the capitals of {items}?",
        ),
        *_table(facts.CAPITALS, "The capital of {item} is {answer}."),
    ),
    "plural": Kind(
        "plural of {item}",
        ("What is the plural of {item}?", "How do you write more than one {item}?", "Give the plural form of {item}."),
        ("What are the plurals of {items}?", "Write the plural of each: {items}.", "Put these words into the plural: {items}."),
        *_table(facts.PLURALS, "The plural of {item} is {answer}."),
    ),
    "past": Kind(
        "past of {item}",
        ("What is the past tense of {item}?", "How does the verb {item} read in the past?", "Give the past form of {item}."),
        (
            "What are the past tenses of {items}?",
            "Put these verbs into the past: {items}.",
            "Give the past form of each verb: {items}.",
        ),
        *_table(facts.PASTS, "The past tense of {item} is {answer}."),
    ),
    "young": Kind(
        "young of {an}",
        ("What is a young {item} called?", "How do you call the baby of {an}?", "What is the name for the young of {an}?"),
        (
            "What are the young of these animals called: {items}?",
            "Name the baby of each animal: {items}.",
            "How are the babies of {items} called?",
        ),
        *_table(facts.YOUNG, "A young {item} is called a {answer}."),
    ),
    "rhyme": Kind(
        "rhyme for {item}",
        ("What rhymes with {item}?", "Name a word that rhymes with {item}.", "Can you find a rhyme for {item}?"),
        (
            "Find one rhyme for each of {items}.",
            "Give a rhyming word for each: {items}.",
            "Which words rhyme with {items}, one for each?",
        ),
        _rhyme,
        lambda draws, count: [draws.rng.choice(group) for group in draws.words(facts.RHYMES, count)],
    ),
    "length": Kind(
        "length of {item}",
        (
            "How many letters does the word {item} have?",
            "How long is the word {item}, in letters?",
            "Count the letters of {item}.",
        ),
        (
            "How many letters do the words {items} have?",
            "Count the letters of each word: {items}.",
            "How long are {items}, in letters?",
        ),
        _length,
        lambda draws, count: draws.words(facts.SPELLED, count),
    ),
    "spelling": Kind(
        "spelling of {item}",
        ("How do you spell {item}?", "Spell the word {item}.", "Spell {item}, letter by letter."),
        ("Spell these words: {items}.", "How are {items} spelled?", "Spell each of {items}, letter by letter."),
        _spelling,
        lambda draws, count: draws.words(facts.SPELLED, count),
    ),
    "product": Kind(
        "{item}",
        ("What is {item}?", "How much is {item}?", "Work out {item}."),
        ("Calculate {items}.", "What are {items}?", "Work out each of {items}."),
        _product,
        _products,
    ),
    "sum": Kind(
        "{item}",
        ("What is {item}?", "How much is {item}?", "Work out {item}."),
        ("Calculate {items}.", "What are {items}?", "Work out each of {items}."),
        _sum,
        _sums,
    ),
}


class _Repeated(Kind):
    """How often a word holds a letter: an item is both."""

    def parts(self, draws: Draws, count: int) -> list[Part]:
        ask, found = draws.phrase(self.asks), []
        for item in self.items(draws, count):
            word, _, letter = item.partition("/")
            found.append(Part(word, f"{letter} in {word}", ask.format(item=word, letter=letter), *self.answer(item)))
        return found


KINDS["repeated"] = _Repeated(
    "{item}",
    (
        "How many times does the letter {letter} occur in {item}?",
        "How often is {letter} used in the word {item}?",
        "Count the letter {letter} in {item}.",
    ),
    (),
    _repeated,
    _letters,
)

FRAMES = (
    "{questions}",
    "Please answer these questions. {questions}",
    "I have a few questions: {questions}",
    "{questions} Keep the answers short.",
    "Help me with my homework. {questions}",
    "Quick quiz! {questions}",
    "Answer each of the following.\n{list}",
    "{list}",
    "Here are {number} questions:\n{list}",
    "A few things I would like to know:\n{list}",
    "For a crossword I need this: {questions}",
    "Let's play a quiz with {number} questions. {questions}",
)

TOGETHER = (
    "{question}",
    "Please tell me: {lower}",
    "{question} I need it for school.",
    "I have a question. {question}",
    "{question} Short answers, please.",
    "Can you help? {question}",
)


def draw(draws: Draws, width: int | None = None) -> Problem:
    """`width` questions of one kind or of several, two to five unless given."""
    rng = draws.rng
    count = rng.choice(WIDTHS[:4]) if width is None else width
    if rng.random() < 0.5:
        kind = rng.choice([kind for kind in KINDS.values() if kind.together])
        parts = kind.parts(draws, count)
        question = draws.phrase(kind.together).format(items=joined([part.item for part in parts]))
        question = draws.phrase(TOGETHER).format(question=question, lower=question[0].lower() + question[1:])
    else:
        kinds = [rng.choice([*KINDS]) for _ in range(count)]
        found: dict[str, list[Part]] = {name: KINDS[name].parts(draws, kinds.count(name)) for name in sorted(set(kinds))}
        parts = [found[name].pop() for name in kinds]
        questions = [part.question for part in parts]
        question = draws.phrase(FRAMES).format(
            questions=" ".join(questions), list="\n".join(f"- {text}" for text in questions), number=NUMBER_WORDS[count]
        )
    answers = [part.answers[0] for part in parts]
    block = Block(
        tuple(part.outline for part in parts),
        tuple((part.working,) for part in parts),
        f"The answers: {joined(answers)}.",
    )
    instance = tuple(part.outline for part in parts)
    return forked("listing", question, "; ".join(answers), block, ListRule(tuple(part.answers for part in parts)), instance)
