"""Clients that people use, unmodified, each in an environment of its own (`make clients` makes them and runs this)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from multiverse import LLM
from tests.serving.conftest import serving

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "clients"
ENVIRONMENTS = Path(os.environ.get("MULTIVERSE_CLIENTS", Path(__file__).parents[2] / "runs" / "clients"))


@pytest.mark.parametrize(
    ("name", "program", "checks"),
    [
        ("agents", "with_agents.py", 8),
        ("litellm", "with_litellm.py", 7),
        ("llm", "with_llm.sh", 4),
        ("open-webui", "with_open_webui.py", 5),
    ],
)
def test_a_client_runs_unmodified(mini_model: LLM, tmp_path: Path, name: str, program: str, checks: int) -> None:
    binaries = ENVIRONMENTS / name / "bin"
    if not (binaries / "python").exists():
        pytest.skip(f"there is no environment {ENVIRONMENTS / name}: make clients")
    with serving(mini_model, api_keys=("sesame",)) as site:
        own = {
            "OPENAI_BASE_URL": f"{site.url}/v1",
            "OPENAI_API_KEY": "sesame",
            "BIN": str(binaries),
            "LLM_USER_PATH": str(tmp_path),
            "CLOSING": json.dumps({str(mini_model.tokenizer.convert_tokens_to_ids("}")): 60}),
        }
        runner = "bash" if program.endswith(".sh") else str(binaries / "python")
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        done = subprocess.run(
            [runner, program], cwd=FOLDER, env={**inherited, **own}, capture_output=True, text=True, check=False, timeout=600
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok: ") == checks, done.stdout
