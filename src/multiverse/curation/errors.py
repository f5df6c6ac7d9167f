"""What ends a run of curation, or one row of it.

    CurationError           (a MultiverseError)
    ├── StoreError          the file of answers cannot be used
    ├── RunError            the folder holds another run, or a run that is still going
    ├── BudgetError         what the run may cost is spent
    ├── StoppedError        the run was asked to stop
    └── EndpointError       the endpoint does not do its work: ends the run
        └── RefusedError    it does, but not for this one request: ends the row

Whoever asks the model lets all of them pass.
"""

from __future__ import annotations

from ..errors import MultiverseError


class CurationError(MultiverseError):
    """Base of what ends a run or a row."""


class StoreError(CurationError):
    """The file of answers is damaged, foreign, or in another run's hands."""


class RunError(CurationError, ValueError):
    """A run cannot go on in this folder."""


class BudgetError(CurationError):
    """What the run may cost, in money or tokens, is spent."""


class StoppedError(CurationError):
    """The run was asked to stop; what was answered is stored."""


class EndpointError(CurationError):
    """The endpoint cannot be reached, or refuses everything."""


class RefusedError(EndpointError):
    """The endpoint works, but one request could not be answered."""
