"""Write the SBOM of the package, in CycloneDX: ``python tools/sbom.py dist/multiverse-llm.cdx.json``.

cyclonedx-py describes this environment. Kept of it is what the package and its extras for users need, in the versions that are
installed here; the page's vendored libraries are added, which no package manager knows of.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
VENDOR = ROOT / "src" / "multiverse" / "serving" / "static" / "vendor"
FOR_DEVELOPMENT = {"dev", "docs", "release"}
"""Extras that no user installs."""
NPM_NAMES = {"highlight.js": "%40highlightjs/cdn-assets"}
"""Names of packages that are not their library's in lower case, as in a package URL."""


def environment() -> dict[str, Any]:
    """Everything that is installed here, with what needs what."""
    command = ["cyclonedx_py", "environment", "--pyproject", "pyproject.toml", "--mc-type", "library", "--output-reproducible"]
    done = subprocess.run([sys.executable, "-m", *command, sys.executable], cwd=ROOT, stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def wanted(project: dict[str, Any]) -> set[str]:
    """Names of the distributions that the package and its extras for users name."""
    extras: dict[str, list[str]] = project["optional-dependencies"]
    needs = [
        *project["dependencies"],
        *(need for extra, named in extras.items() if extra not in FOR_DEVELOPMENT for need in named),
    ]
    return {normal(re.split(r"[<>=;\[ ]", need)[0]) for need in needs}


def normal(name: str) -> str:
    """A distribution's name as comparisons have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def reachable(bom: dict[str, Any], names: set[str]) -> set[str]:
    """References of the distributions of these names, and of all that they need."""
    needs = {entry["ref"]: entry.get("dependsOn", []) for entry in bom["dependencies"]}
    left = [entry["bom-ref"] for entry in bom["components"] if normal(entry["name"]) in names]
    found: set[str] = set()
    while left:
        ref = left.pop()
        if ref not in found:
            found.add(ref)
            left += needs.get(ref, [])
    return found


def vendored() -> list[dict[str, Any]]:
    """The page's libraries, from the table beside them."""
    rows = re.findall(r"^\| \[([^]]+)\]\(([^)]+)\) \| ([\d.]+) \| (\S+) \|", (VENDOR / "README.md").read_text(), re.MULTILINE)
    return [
        {
            "bom-ref": f"vendored:{name}",
            "type": "library",
            "name": name,
            "version": version,
            "licenses": [{"license": {"id": license_name}}],
            "purl": f"pkg:npm/{NPM_NAMES.get(name, name.lower())}@{version}",
            "externalReferences": [{"type": "website", "url": address}],
        }
        for name, address, version, license_name in rows
    ]


def sbom(bom: dict[str, Any], project: dict[str, Any], version: str) -> dict[str, Any]:
    """The part of an environment's SBOM that describes the package, with its vendored libraries."""
    names = wanted(project)
    kept, own = reachable(bom, names), vendored()
    root = {**bom["metadata"]["component"], "version": version, "purl": f"pkg:pypi/{project['name']}@{version}"}
    direct = [entry["bom-ref"] for entry in bom["components"] if normal(entry["name"]) in names]
    return {
        **bom,
        "metadata": {**bom["metadata"], "component": root},
        "components": [entry for entry in bom["components"] if entry["bom-ref"] in kept] + own,
        "dependencies": [
            {"ref": root["bom-ref"], "dependsOn": [*direct, *(entry["bom-ref"] for entry in own)]},
            *(entry for entry in bom["dependencies"] if entry["ref"] in kept),
            *({"ref": entry["bom-ref"]} for entry in own),
        ],
    }


def main(path: str) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    import multiverse

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = json.dumps(sbom(environment(), project, multiverse.__version__), indent=1) + "\n"
    if (wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        raise SystemExit(f"the SBOM breaks the schema of CycloneDX 1.6: {wrong}")
    Path(path).write_text(text)
    print(f"{path}: {len(json.loads(text)['components'])} components")


if __name__ == "__main__":
    main(sys.argv[1])
