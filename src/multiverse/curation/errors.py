"""Errors of curation.

    CurationError           (a MultiverseError): ends a run, or one row of it
    ├── StoreError          the store of completions cannot be used
    ├── RunError            the folder holds another run, or a run that is still going
    ├── BudgetError         the budget of the run is spent
    ├── StoppedError        the run was asked to stop
    └── EndpointError       the endpoint fails: ends the run
        └── RefusedError    the endpoint works but refuses this one request: ends the row
    ValidationError         a completion is invalid; handled inside this package

Code that asks the model lets every CurationError pass.
"""

from __future__ import annotations

from ..errors import MultiverseError


class CurationError(MultiverseError):
    """Base of the errors that end a run or a row."""


class StoreError(CurationError):
    """The store of completions is damaged, of another kind, or locked by another run."""


class RunError(CurationError, ValueError):
    """A run cannot use this folder."""


class BudgetError(CurationError):
    """The budget of the run, in money or tokens, is spent."""


class StoppedError(CurationError):
    """The run was asked to stop; completions so far are stored."""


class EndpointError(CurationError):
    """The endpoint cannot be reached, or refuses every request."""


class RefusedError(EndpointError):
    """The endpoint works, but one request could not be completed."""


class ValidationError(ValueError):
    """A completion, or what was made of it, is invalid.

    Args:
        reason: a short name to count by.
        detail: the message for the model. It is part of the next request, and so of the key under which the completion of that
            is stored: with another wording, stored completions of retries are not found.
    """

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason}: {detail}")
