"""`multiverse serve --replicas N`: replicas of a model under Ray Serve, behind one address.

Ray starts the replicas, watches over them, replaces what dies, and adds or takes away some as the load asks for. The address
is served by this process (see `gateway.py`), which hands out requests through Ray's own handle, to the less busy of two
replicas at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExtraError, ModelError, RequestError
from . import logs
from .gateway import Gateway, PoolFullError, ReplicaLostError, Report, as_runner
from .replica import Board, Replica
from .server import Server, limits, listen
from .settings import Settings

if TYPE_CHECKING:
    from .middleware import Message

OnReady = Callable[[str], None] | None

_STORE = 256 << 20
"""Bytes of shared memory for Ray's objects: ours are small."""
_SLACK = 64
"""Requests beyond its own bounds that a replica is handed, so that it refuses them itself."""
_HEALTH = 2.0


@dataclass(frozen=True)
class Scale:
    """How many replicas.

    Attributes:
        replicas: how many there are; with `max_replicas`, the fewest.
        max_replicas: the most, when load asks for more; `None` keeps their number.
        target_requests: requests that run on a replica at a time when there are just enough of them; for scaling.
        downscale_delay: seconds of little load after which there are fewer.
    """

    replicas: int = 2
    max_replicas: int | None = None
    target_requests: float = 32.0
    downscale_delay: float = 300.0

    def __post_init__(self) -> None:
        most = self.max_replicas
        checks = (
            ("replicas", self.replicas >= 1, "1 or more"),
            ("max_replicas", most is None or most >= self.replicas, f"at least replicas ({self.replicas}), or None"),
            ("target_requests", self.target_requests > 0, "above 0"),
            ("downscale_delay", self.downscale_delay >= 0, "0 or more seconds"),
        )
        for name, good, allowed in checks:
            if not good:
                raise RequestError(f"{name}={getattr(self, name)!r} is not valid: it must be {allowed}")

    @property
    def most(self) -> int:
        """The most replicas that there can be."""
        return self.max_replicas if self.max_replicas is not None else self.replicas


def run(
    settings: Settings,
    options: Mapping[str, Any],
    scale: Scale,
    on_ready: OnReady = None,
) -> None:
    """Serve until a signal comes and what runs is finished.

    Args:
        settings: the server's options; bounds on requests are each replica's.
        options: what `LLM` is made with: `model`, `dtype`, `device`, `kv_memory`, `tensor_parallel`.
        on_ready: called with the server's address once replicas are up and it listens.

    Raises:
        ModelError: the replicas cannot be started.
        RequestError: the address cannot be had.
        ExtraError: Ray is not installed.
    """
    own = listen(settings)
    pool = RayPool(settings, options, scale)
    try:
        name = settings.served_model_name
        room = scale.most * (settings.max_concurrent + settings.max_queue)
        gateway = partial(Gateway, pool, settings, name if name is not None else model_name(options), room)
        asyncio.run(_serve(gateway, settings, own, on_ready))
    finally:
        pool.end()


async def _serve(make: Callable[[], Gateway], settings: Settings, own: socket.socket, on_ready: OnReady) -> None:
    import uvicorn

    gateway = make()
    config = uvicorn.Config(
        gateway.app(),
        http=limits(settings),
        ws="none",
        lifespan="off",
        root_path=settings.root_path,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
    )
    await Server(config, as_runner(gateway), on_ready).serve(sockets=[own])


def model_name(options: Mapping[str, Any]) -> str:
    """By what name clients ask for the model, if none was given."""
    model = options.get("model")
    if model is None:
        return "multiverse-mini"
    path = Path(str(model)).expanduser()
    return path.resolve().name if path.is_dir() else str(model)


class RayPool:
    """Replicas under Ray Serve. Raises as `run`."""

    def __init__(self, settings: Settings, options: Mapping[str, Any], scale: Scale) -> None:
        _prepare_environment()
        try:
            import ray
            from ray import serve
        except ImportError as missing:
            raise ExtraError("ray[serve]", "ray") from missing
        self._ray, self._serve = ray, serve
        resources = _resources(options, scale)
        self._own = "RAY_ADDRESS" not in os.environ
        self._name = f"multiverse-{secrets.token_hex(4)}"  # there may be others on a cluster
        logs.log("starting Ray" if self._own else "joining Ray", replicas=scale.replicas)
        given: dict[str, Any] = {"namespace": "multiverse", "log_to_driver": True, "logging_level": logging.ERROR}
        if self._own:
            cores = max(os.cpu_count() or 1, resources["num_cpus"] * scale.most)
            given |= {"include_dashboard": False, "num_cpus": cores, "object_store_memory": _STORE}
        try:
            ray.init(**given)
        except Exception as error:  # of any kind, down to the bare one
            ray.shutdown()
            where = "could not be started" if self._own else f"at RAY_ADDRESS={os.environ['RAY_ADDRESS']!r} could not be joined"
            raise ModelError(f"Ray {where}: {str(error).strip().partition(chr(10))[0]}") from error
        board: Any = ray.remote(Board)
        self._board: Any = board.options(num_cpus=0, max_restarts=-1).remote()
        try:
            self._handle = self._deploy(settings, dict(options), scale, resources)
        except BaseException:
            self.end()
            raise

    def _deploy(self, settings: Settings, options: dict[str, Any], scale: Scale, resources: dict[str, Any]) -> Any:
        """Start the replicas, and wait until they are up."""
        serve = self._serve
        # Who may ask, and from where, has been settled before a request comes to a replica.
        inner = replace(
            settings, api_keys=(), cors_origins=(), served_model_name=settings.served_model_name or model_name(options)
        )
        room = settings.max_concurrent + settings.max_queue + _SLACK
        sizes: dict[str, Any] = {"num_replicas": scale.replicas}
        if scale.max_replicas is not None:
            sizes = {
                "autoscaling_config": {
                    "min_replicas": scale.replicas,
                    "max_replicas": scale.max_replicas,
                    "target_ongoing_requests": scale.target_requests,
                    "upscale_delay_s": 5.0,
                    "downscale_delay_s": scale.downscale_delay,
                    "look_back_period_s": 10.0,
                }
            }
        deployment = serve.deployment(
            Replica,
            name="replica",
            ray_actor_options=resources,
            max_ongoing_requests=room,
            max_queued_requests=_SLACK,
            health_check_period_s=_HEALTH,
            health_check_timeout_s=60.0,
            graceful_shutdown_timeout_s=settings.drain_grace,
            graceful_shutdown_wait_loop_s=1.0,
            max_constructor_retry_count=2,
            logging_config={"log_level": "ERROR", "enable_access_log": False},
            **sizes,
        )
        serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR", "enable_access_log": False})
        try:
            handle = serve.run(deployment.bind(inner, options, self._board), name=self._name, route_prefix=None)
        except RuntimeError as error:
            raise ModelError(f"the replicas could not be started: {_reason(error)}") from None
        return handle.options(stream=True, method_name="answer")

    async def answer(self, scope: dict[str, Any], content: bytes) -> AsyncIterator[list[Message]]:
        """See `Pool`."""
        from ray.exceptions import RayActorError
        from ray.serve.exceptions import BackPressureError

        response = self._handle.remote(scope, content)
        over = False
        try:
            async for messages in response:
                yield messages
            over = True
        except RayActorError as error:
            over = True
            raise ReplicaLostError(str(error)) from None
        except BackPressureError:
            over = True
            raise PoolFullError from None
        finally:
            if not over:
                response.cancel()

    async def replicas(self) -> dict[str, Report]:
        """See `Pool`."""
        from ray.exceptions import RayError

        try:
            reports: dict[str, Report] = await asyncio.wait_for(_future(self._board.read.remote()), 5)
        except (RayError, TimeoutError):
            return {}
        return reports

    async def close(self) -> None:
        """See `Pool`."""
        await asyncio.to_thread(self.end)

    def end(self) -> None:
        """End the replicas; and Ray, if it was started here. May be called again."""
        if not self._ray.is_initialized():
            return
        if not self._own:  # of somebody else's cluster, take out only what was put in
            with contextlib.suppress(Exception):
                self._serve.delete(self._name)
            with contextlib.suppress(Exception):
                self._ray.kill(self._board)
        leave: Any = self._ray.shutdown
        leave()


def _future(reference: Any) -> asyncio.Future[Any]:
    return asyncio.wrap_future(reference.future())


def _prepare_environment() -> None:
    """What Ray reads when it is imported. A cluster of our own asks for a token that is not left lying in the home folder."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's own patience is for machines that have nothing else to do: for its start, and for how busy a replica says it is.
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "300")
    os.environ.setdefault("RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S", "1")
    logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.ERROR)  # our log tells what matters
    if "RAY_ADDRESS" not in os.environ and "RAY_AUTH_MODE" not in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def _resources(options: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    """What a replica takes of a machine: a GPU for each rank where there are GPUs, else its share of the cores."""
    from ..backends import on_gpu

    ranks = int(options.get("tensor_parallel") or 1)
    device = str(options.get("device") or "auto")
    if on_gpu(device):
        return {"num_gpus": ranks, "num_cpus": ranks}
    return {"num_cpus": max(1, (os.cpu_count() or 1) // scale.most)}


def _reason(error: Exception) -> str:
    """The line of a failed deployment's report that says why."""
    lines = [line.strip() for line in str(error).splitlines() if "Error" in line]
    return lines[-1][:500] if lines else str(error).strip().partition("\n")[0][:500]
