"""The metrics, and the dashboard that shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="the extra [serve] is not installed")

from prometheus_client.parser import text_string_to_metric_families

from multiverse.engine import Generation, Usage
from multiverse.serving.metrics import CONTENT_TYPE, Metrics, Snapshot

DASHBOARD = Path(__file__).parents[2] / "recipes" / "serving" / "grafana.json"
NOW = Snapshot(running=3, waiting=2, kv_usage=0.25, prefix_queries=100, prefix_hits=40, preemptions=1)


def generation(total: int, critical: int) -> Generation:
    usage = Usage(
        prompt_tokens=5, total_tokens=total, critical_path_tokens=critical, critical_path_steps=critical - 1, seconds=1.0
    )
    return Generation("", "", None, "stop", usage, (), (), (), (), None, ())


@pytest.fixture
def samples() -> dict[str, float]:
    """Every sample of a server on which something has happened, by name and labels."""
    metrics = Metrics("m", lambda: NOW)
    metrics.branches = 7
    metrics.finished(generation(30, 10))
    metrics.failed("disconnect")
    metrics.rejected("full")
    metrics.answered("POST", 200)
    metrics.answered("BREW", 418)
    assert "0.0.4" in CONTENT_TYPE
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        sample.name + json.dumps(sample.labels, sort_keys=True): sample.value
        for family in families
        for sample in family.samples
    }


def test_gauges_of_the_server(samples: dict[str, float]) -> None:
    shown = {
        "num_requests_running": 3,
        "num_requests_waiting": 2,
        "branches_running": 7,
        "kv_cache_usage_perc": 0.25,
        "prefix_cache_queries_total": 100,
        "prefix_cache_hits_total": 40,
        "preemptions_total": 1,
    }
    assert {name: samples[f'multiverse:{name}{{"model_name": "m"}}'] for name in shown} == shown


def test_counters(samples: dict[str, float]) -> None:
    def at(name: str, **labels: str) -> float:
        return samples[f"multiverse:{name}" + json.dumps({"model_name": "m", **labels}, sort_keys=True)]

    assert at("request_success_total", finished_reason="stop") == 1
    assert at("request_failure_total", reason="disconnect") == 1
    assert at("request_rejected_total", reason="full") == 1
    assert at("http_requests_total", method="POST", status="200") == 1
    assert at("http_requests_total", method="other", status="418") == 1  # a client cannot make up labels
    assert at("critical_path_tokens_total") == 10
    assert at("critical_path_steps_total") == 9
    assert at("parallelism_sum") == 3
    assert at("parallelism_bucket", le="2.5") == 0
    assert at("parallelism_bucket", le="3.0") == 1


def test_the_dashboard_knows_every_metric_and_no_other(samples: dict[str, float]) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", []))
    asked = set(re.findall(r"(?:multiverse:|process_)\w+", expressions))
    told = {name.partition("{")[0] for name in samples}
    assert asked <= told
    ours = {re.sub("_(bucket|sum|count|created)$", "", name) for name in told if name.startswith("multiverse:")}
    # A counter's time of creation is named after the counter, without its _total.
    ours = {name for name in ours if f"{name}_total" not in ours}
    assert {re.sub("_bucket$", "", name) for name in asked if name.startswith("multiverse:")} == ours


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels: list[dict[str, Any]] = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
