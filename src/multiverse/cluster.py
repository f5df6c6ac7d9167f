"""Ray, under which replicas run: a private cluster on this machine, or the one that ``RAY_ADDRESS`` names."""

from __future__ import annotations

import logging
import os
import secrets
from typing import Any

from .errors import ModelError, first_line, require


def is_private() -> bool:
    """Whether `start` starts a cluster of this process's own."""
    return "RAY_ADDRESS" not in os.environ


def import_ray() -> Any:
    """The module `ray`, with what it reads from the environment when it is imported: no statistics of usage, patience on a busy
    machine, and for a private cluster a token that is not written to the home folder.

    Raises:
        ExtraError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
    if is_private() and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    return require("ray", "ray")


def start(ray: Any, **private: Any) -> None:
    """Join the cluster, or start a private one without a dashboard.

    Args:
        private: arguments of `ray.init` for a private one.

    Raises:
        ModelError: that fails.
    """
    given: dict[str, Any] = {"namespace": "multiverse", "log_to_driver": True, "logging_level": logging.ERROR}
    if is_private():
        given |= {"include_dashboard": False, **private}
    try:
        ray.init(**given)
    except Exception as error:  # of any kind, bare `Exception` included
        ray.shutdown()
        where = "could not be started" if is_private() else f"at RAY_ADDRESS={os.environ['RAY_ADDRESS']!r} could not be joined"
        raise ModelError(f"Ray {where}: {first_line(error)}") from error


def reason(error: Exception) -> str:
    """The line of a report of Ray's that names the error."""
    lines = [line.strip() for line in str(error).splitlines() if "Error" in line]
    return (lines[-1] if lines else first_line(error))[:500]


def be_quiet() -> None:
    """In a replica's process: no warnings and no progress bars of libraries, which Ray would print for each of them."""
    import warnings

    from transformers.utils import logging as transformers_logging

    warnings.simplefilter("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
