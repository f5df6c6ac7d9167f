"""Programs that a test needs beside the Python packages: without them it is skipped, but never on CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skip the test, naming what is missing; with ``CI=true`` fail it, since `make test` installs these programs there."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; with CI=true this test must run", pytrace=False)
    pytest.skip(reason)
