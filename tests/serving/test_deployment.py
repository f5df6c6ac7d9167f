"""Containers, Compose and Kubernetes as the server is: paths, ports, users, times to drain, metrics.

`make deploy-check` runs the linters of these files.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

pytest.importorskip("prometheus_client", reason="the extra [serve] is not installed")

from multiverse.cli.app import app
from multiverse.serving.config import ServerConfig
from multiverse.serving.metrics import Metrics, Snapshot
from multiverse.serving.middleware import OPEN

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "recipes" / "serving"
DEFAULTS = ServerConfig()


def documents(path: str) -> dict[str, Any]:
    """The documents of a file of manifests, by kind."""
    return {document["kind"]: document for document in yaml.safe_load_all((SERVING / "kubernetes" / path).read_text())}


DEPLOYMENT: dict[str, Any] = documents("multiverse.yaml")["Deployment"]
POD: dict[str, Any] = DEPLOYMENT["spec"]["template"]["spec"]
CONTAINER: dict[str, Any] = POD["containers"][0]
COMPOSE: dict[str, Any] = yaml.safe_load((SERVING / "compose.yaml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def options_of_serve() -> set[str]:
    command: Any = typer.main.get_command(app)
    return {name for param in command.commands["serve"].params for name in (*param.opts, *param.secondary_opts)}


@pytest.mark.parametrize(
    "args", [CONTAINER["args"], COMPOSE["services"]["multiverse"]["command"]], ids=["kubernetes", "compose"]
)
def test_arguments_are_options_of_serve(args: list[str]) -> None:
    first, *rest = args
    assert first == "serve"
    assert {arg.partition("=")[0] for arg in rest} <= options_of_serve()
    assert "--host=0.0.0.0" in rest  # loopback would be the container's own


def test_probes_ask_what_needs_no_key() -> None:
    paths = {name: CONTAINER[name]["httpGet"]["path"] for name in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert set(paths.values()) <= OPEN
    assert paths["readinessProbe"] == "/ready"  # 503 while it drains, when the process must not be killed
    assert paths["livenessProbe"] == "/health"
    assert "http://127.0.0.1:8000/health" in DOCKERFILE


def test_ports() -> None:
    assert CONTAINER["ports"] == [{"name": "http", "containerPort": DEFAULTS.port}]
    assert documents("multiverse.yaml")["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    assert f"EXPOSE {DEFAULTS.port}" in DOCKERFILE
    assert COMPOSE["services"]["multiverse"]["ports"] == [f"127.0.0.1:{DEFAULTS.port}:{DEFAULTS.port}"]


def test_there_is_time_to_drain() -> None:
    grace = float(next(arg for arg in CONTAINER["args"] if arg.startswith("--drain-grace=")).partition("=")[2])
    waits = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert grace == DEFAULTS.drain_grace
    assert POD["terminationGracePeriodSeconds"] > grace + waits
    assert int(COMPOSE["services"]["multiverse"]["stop_grace_period"].removesuffix("s")) > DEFAULTS.drain_grace


def test_nothing_runs_as_root_and_what_is_written_can_be() -> None:
    users = set(re.findall(r"^USER (\S+)$", DOCKERFILE, re.MULTILINE))
    assert users == {"10001:10001"}
    assert DOCKERFILE.count("USER 10001:10001") == len(re.findall(r"^FROM base AS ", DOCKERFILE, re.MULTILINE))
    security = POD["securityContext"]
    assert security["runAsNonRoot"]
    assert {security["runAsUser"], security["runAsGroup"], security["fsGroup"]} == {10001}
    assert "--uid 10001" in DOCKERFILE
    mounts = {mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    assert mounts == {"/cache", "/tmp"}  # all that it writes, since the rest is read-only
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    for variable in ("XDG_CACHE_HOME", "HF_HOME", "TRITON_CACHE_DIR"):
        assert re.search(rf"{variable}=/cache\b", DOCKERFILE), variable


def test_the_image_is_built_from_what_is_sent() -> None:
    sent = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copied = {name for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]}
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
    extras = {extra for names in re.findall(r"\.whl\)\[([\w,]+)\]", DOCKERFILE) for extra in names.split(",")}
    assert extras == {"serve", "gguf", "chat", "cuda"}


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """Names of the server's metrics, those included that count nothing yet."""
    snapshot = Snapshot(*(1 for _ in Snapshot._fields))
    server = Metrics("m", lambda: snapshot)
    server.failed("error")
    server.rejected("full")
    return set(re.findall(r"^(multiverse:\w+)", server.render().decode(), re.MULTILINE))


def test_alerts_ask_for_metrics_that_there_are(metrics: set[str]) -> None:
    rules = yaml.safe_load((SERVING / "alerts.yml").read_text())["groups"][0]["rules"]
    asked = {name for rule in rules for name in re.findall(r"multiverse:\w+", rule["expr"])}
    assert len(rules) == 5
    assert asked
    assert asked <= metrics
    page = (ROOT / "docs" / "operation.md").read_text()
    assert "recipes/serving/alerts.yml" in page


def test_it_scales_by_metrics_that_there_are(metrics: set[str]) -> None:
    rules = yaml.safe_load((SERVING / "kubernetes" / "adapter-values.yaml").read_text())["rules"]["custom"]
    offered = {rule["name"]["as"]: rule["seriesQuery"].partition("{")[0] for rule in rules}
    assert set(offered.values()) <= metrics
    scaler = documents("autoscaling.yaml")["HorizontalPodAutoscaler"]["spec"]
    assert {metric["pods"]["metric"]["name"] for metric in scaler["metrics"]} == set(offered)
    assert scaler["scaleTargetRef"]["name"] == DEPLOYMENT["metadata"]["name"]
    assert "replicas" not in DEPLOYMENT["spec"]  # applying the manifest again would undo what the scaler did


def test_all_of_one_name() -> None:
    label = {"app.kubernetes.io/name": "multiverse"}
    kinds = documents("multiverse.yaml") | documents("monitoring.yaml")
    assert DEPLOYMENT["spec"]["template"]["metadata"]["labels"] == label
    for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
        assert kinds[kind]["spec"]["selector"]["matchLabels"] == label
    assert kinds["Service"]["spec"]["selector"] == label
    claim = next(volume["persistentVolumeClaim"]["claimName"] for volume in POD["volumes"] if "persistentVolumeClaim" in volume)
    assert kinds["PersistentVolumeClaim"]["metadata"]["name"] == claim
    secret = next(one["valueFrom"]["secretKeyRef"] for one in CONTAINER["env"] if one["name"] == "MULTIVERSE_API_KEY")
    assert kinds["PodMonitor"]["spec"]["podMetricsEndpoints"][0]["authorization"]["credentials"] == secret
    keys = next(field for field in fields(ServerConfig) if field.name == "api_keys")
    assert "MULTIVERSE_API_KEY" in repr(keys.metadata)


def test_compose_mounts_what_there_is() -> None:
    mounted = [volume for service in COMPOSE["services"].values() for volume in service["volumes"] if volume.startswith("./")]
    assert len(mounted) == 5
    assert all((SERVING / volume.partition(":")[0]).is_file() for volume in mounted)
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert f"./grafana.json:{home}:ro" in mounted
    assert json.loads((SERVING / "grafana.json").read_text())["title"] == "Multiverse"
    prometheus = yaml.safe_load((SERVING / "compose" / "prometheus.yml").read_text())
    assert prometheus["scrape_configs"][0]["static_configs"] == [{"targets": [f"multiverse:{DEFAULTS.port}"]}]
    assert prometheus["scrape_configs"][0]["job_name"] == "multiverse"  # which an alert asks for
    assert prometheus["rule_files"] == ["/etc/prometheus/alerts.yml"]
