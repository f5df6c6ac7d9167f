"""`multiverse serve --replicas N`: replicas of a model under Ray Serve, behind one address.

Ray starts the replicas, checks their health, replaces those that die, and scales their number with the load. The address is
served by this process (see `gateway.py`), which hands out requests through Ray's handle, to the less busy of two replicas at a
time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import cluster
from ..errors import ModelError, require
from ..threads import usable_cores
from . import logs
from .config import ScaleConfig, ServerConfig
from .gateway import Gateway, PoolFullError, ReplicaLostError, Report
from .replica import Board, Replica
from .server import listen, make_server
from .service import model_name

if TYPE_CHECKING:
    from .middleware import Message

OnReady = Callable[[str], None] | None

_STORE = 256 << 20
"""Bytes of shared memory for Ray's objects, which are small here."""
_SLACK = 64
"""Requests beyond its own limits that a replica is handed, so that it refuses them itself."""
_HEALTH = 2.0
"""Seconds between health checks."""


def run(
    config: ServerConfig,
    options: Mapping[str, Any],
    scale: ScaleConfig,
    on_ready: OnReady = None,
) -> None:
    """Serve until a signal comes and what runs is finished.

    Args:
        config: the server's options; limits on requests are each replica's.
        options: arguments of `LLM`: `model`, `dtype`, `device`, `quantize`, `kv_memory`, `tensor_parallel`.
        scale: how many replicas.
        on_ready: called with the server's address once replicas are up and it listens.

    Raises:
        ModelError: the replicas cannot be started.
        RequestError: the address cannot be used.
        ExtraError: Ray is not installed.
    """
    own = listen(config)
    pool = RayPool(config, options, scale)
    name = config.served_model_name or model_name(options.get("model"))
    limit = scale.most * (config.max_concurrent + config.max_queue)

    async def serve() -> None:
        gateway = Gateway(pool, config, name, limit)
        await make_server(gateway, gateway.app(), on_ready, lifespan="off").serve(sockets=[own])

    try:
        asyncio.run(serve())
    finally:
        pool.end()


class RayPool:
    """Replicas under Ray Serve. Raises as `run`."""

    def __init__(self, config: ServerConfig, options: Mapping[str, Any], scale: ScaleConfig) -> None:
        # Too short for a busy machine: the time in which a replica has to tell the length of its queue.
        os.environ.setdefault("RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S", "1")
        logging.getLogger("ray.serve").addFilter(lambda record: record.levelno >= logging.ERROR)
        self._ray = ray = cluster.import_ray()
        self._serve = require("ray.serve", "ray")
        resources = _resources(options, scale)
        self._own = cluster.is_private()
        self._name = f"multiverse-{secrets.token_hex(4)}"  # there may be others on a cluster
        logs.log("starting Ray" if self._own else "joining Ray", replicas=scale.replicas)
        cores = max(usable_cores(), resources["num_cpus"] * scale.most)
        cluster.start(ray, num_cpus=cores, object_store_memory=_STORE)
        board: Any = ray.remote(Board)
        self._board: Any = board.options(num_cpus=0, max_restarts=-1).remote()
        try:
            self._handle = self._deploy(config, dict(options), scale, resources)
        except BaseException:
            self.end()
            raise

    def _deploy(self, config: ServerConfig, options: dict[str, Any], scale: ScaleConfig, resources: dict[str, Any]) -> Any:
        """Start the replicas, and wait until they are up."""
        serve = self._serve
        # The gateway has checked API keys and origins.
        name = config.served_model_name or model_name(options.get("model"))
        inner = replace(config, api_keys=(), cors_origins=(), served_model_name=name)
        room = config.max_concurrent + config.max_queue + _SLACK
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
            graceful_shutdown_timeout_s=config.drain_grace,
            graceful_shutdown_wait_loop_s=1.0,
            max_constructor_retry_count=2,
            logging_config={"log_level": "ERROR", "enable_access_log": False},
            **sizes,
        )
        serve.start(proxy_location="Disabled", logging_config={"log_level": "ERROR", "enable_access_log": False})
        try:
            handle = serve.run(deployment.bind(inner, options, self._board), name=self._name, route_prefix=None)
        except RuntimeError as error:
            raise ModelError(f"the replicas could not be started: {cluster.reason(error)}") from None
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
        if not self._own:  # a cluster that others use: end only what was started here
            with contextlib.suppress(Exception):
                self._serve.delete(self._name)
            with contextlib.suppress(Exception):
                self._ray.kill(self._board)
        leave: Any = self._ray.shutdown
        leave()


def _future(reference: Any) -> asyncio.Future[Any]:
    return asyncio.wrap_future(reference.future())


def _resources(options: Mapping[str, Any], scale: ScaleConfig) -> dict[str, Any]:
    """Resources of a replica: a GPU for each rank where there are GPUs, else its share of the cores."""
    from ..backends import on_gpu

    ranks = int(options.get("tensor_parallel") or 1)
    device = str(options.get("device") or "auto")
    if on_gpu(device):
        return {"num_gpus": ranks, "num_cpus": ranks}
    return {"num_cpus": max(1, usable_cores() // scale.most)}
