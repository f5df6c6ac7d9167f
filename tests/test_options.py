"""Options declared beside their fields: types, bounds, earlier names, and what the messages say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import pytest

from multiverse.common import CommonOptions
from multiverse.errors import ConfigError, RequestError
from multiverse.options import Options, declared, describe, like, option, types


@dataclass(frozen=True)
class Sampling(Options):
    """An example."""

    error: ClassVar[type[Exception]] = RequestError

    count: int = option(1, "How many.", ge=1, metavar="N", was="number")
    share: float = option(0.5, "How much.", gt=0, le=1)
    longest: int | None = option(None, "At most.", ge=1)
    mode: Literal["parallel", "sequential"] = option("parallel", "How.")
    betas: list[float] = option(factory=lambda: [0.9], help="Momenta.", ge=0, lt=1)
    quiet: bool = option(False, "Say nothing.")


def test_defaults_and_good_values() -> None:
    assert Sampling().betas == [0.9]
    made = Sampling(count=3, share=1, longest=7, mode="sequential", betas=[0.0, 0.99], quiet=True)
    assert replace(made, count=4).count == 4
    assert Sampling(count=np.int64(2)).count == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count=0 is not valid: it must be a whole number of 1 or more"),
        ({"count": 2.5}, "count=2.5 is not valid: it must be a whole number of 1 or more"),
        ({"count": True}, "count=True is not valid: it must be a whole number of 1 or more"),
        ({"count": "3"}, "count='3' is not valid: it must be a whole number of 1 or more"),
        ({"share": 0}, "share=0 is not valid: it must be a number above 0 and at most 1"),
        ({"share": float("nan")}, "share=nan is not valid: it must be a number above 0 and at most 1"),
        ({"longest": 0}, "longest=0 is not valid: it must be a whole number of 1 or more, or None"),
        ({"mode": "wide"}, "mode='wide' is not valid: it must be 'parallel', 'sequential'"),
        ({"betas": [0.9, 1.0]}, "betas=[0.9, 1.0] is not valid: it must be a list, each a number of 0 or more and below 1"),
        ({"betas": 0.9}, "betas=0.9 is not valid: it must be a list, each a number of 0 or more and below 1"),
        ({"quiet": 1}, "quiet=1 is not valid: it must be true or false"),
        ({"number": 3}, "number is now called count"),
    ],
)
def test_bad_values_are_named_with_what_they_have_to_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        Sampling(**values)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_infinity_is_refused_even_without_a_limit() -> None:
    @dataclass(frozen=True)
    class Open(Options):
        share: float = option(0.0, "No bound above.", ge=0)

    with pytest.raises(ConfigError, match="share=inf is not valid: it must be a number of 0 or more"):
        Open(share=float("inf"))


def test_declarations_can_be_read() -> None:
    assert list(declared(Sampling)) == ["count", "share", "longest", "mode", "betas", "quiet"]
    assert declared(Sampling)["count"].metavar == "N"
    assert types(Sampling)["longest"] == int | None
    assert describe(types(Sampling)["longest"], declared(Sampling)["longest"]) == "a whole number of 1 or more, or None"


def test_a_field_may_be_declared_like_another() -> None:
    @dataclass(frozen=True)
    class Other(Options):
        count: int = like(Sampling, "count")
        share: float = like(Sampling, "share", 0.75, help="Of everything.")
        betas: list[float] = like(Sampling, "betas")

    assert Other() == Other(count=1, share=0.75, betas=[0.9])
    assert declared(Other)["count"] == declared(Sampling)["count"]
    assert (declared(Other)["share"].help, declared(Other)["share"].le) == ("Of everything.", 1)
    with pytest.raises(ConfigError, match="share=2 is not valid: it must be a number above 0 and at most 1"):
        Other(share=2)


def test_a_field_like_another_may_be_required_and_stays_out_of_the_repr() -> None:
    @dataclass(frozen=True)
    class Access(Options):
        count: int = like(Sampling, "count", required=True)
        api_key: str | None = like(CommonOptions, "api_key", "secret")

    assert repr(Access(count=2)).endswith("Access(count=2)")
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'count'"):
        Access()  # type: ignore[call-arg]
