"""The official `openai` package of npm, unmodified, against a real server.

Needs node and the package, which `make test` installs:  npm install --prefix tests/serving/openai_node
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from multiverse import LLM
from tests.needs import missing
from tests.serving.conftest import serving

FOLDER = Path(__file__).parent / "openai_node"


def test_the_node_package_runs_unmodified(mini_model: LLM) -> None:
    if shutil.which("node") is None:
        missing("node is not installed")
    if not (FOLDER / "node_modules" / "openai").is_dir():
        missing(f"the npm package is not installed: npm install --prefix {FOLDER.relative_to(Path.cwd())}")
    with serving(mini_model, api_keys=("sesame",)) as site:
        environment = {
            **os.environ,
            "OPENAI_BASE_URL": f"{site.url}/v1",
            "OPENAI_API_KEY": "sesame",
            "OPENAI_API_KEY_CHECKED": "1",
        }
        done = subprocess.run(
            ["node", "conformance.mjs"], cwd=FOLDER, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok: ") == 8
