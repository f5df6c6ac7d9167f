"""Models on the Hugging Face hub, in the hub's own cache. No torch."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..errors import ModelError, first_line
from .places import Progress, complete
from .registry import Hub
from .watch import watched

# Everything that a model needs, and no second copy of the weights in another format.
_WANTED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "README.md", "LICENSE*", "NOTICE*", "USE_POLICY*"]
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_TIMEOUT = 10  # seconds for the hub to answer


def find(source: Hub) -> Path | None:
    """The snapshot in the hub's cache; `None` unless it is whole."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(source.id, revision=source.revision, local_files_only=True))
    except (OSError, ValueError):
        return None
    return folder if complete(folder) else None


def fetch(source: Hub, progress: Progress) -> Path:
    """Download what is missing, and check it; a download that was cut off is gone on with.

    Raises:
        ModelError: the hub does not answer, does not have it or refuses it, or a file's checksum is wrong.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    store = Path(constants.HF_HUB_CACHE) / f"models--{source.id.replace('/', '--')}"
    settings = {"revision": source.revision, "allow_patterns": _WANTED, "etag_timeout": _TIMEOUT}
    try:
        wanted = snapshot_download(source.id, dry_run=True, **settings)  # type: ignore[call-overload]
        size = sum(file.file_size for file in wanted if file.will_download)
        with watched(store, f"fetching {source.id}", size, progress):
            folder = Path(snapshot_download(source.id, **settings))  # type: ignore[call-overload]
    except GatedRepoError as error:
        raise ModelError(
            f"the hub gives {source.id} only to who has accepted its licence: accept it at https://huggingface.co/{source.id}, "
            f"then log in with  hf auth login"
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ModelError(f"the hub has no {source.id} in revision {source.revision}: {first_line(error)}") from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise ModelError(f"the hub did not return {source.id}: {first_line(error)}") from error
    _check(folder, progress)
    if not complete(folder):
        raise ModelError(f"the hub's {source.id} holds no config.json with weights in safetensors")
    return folder


def _check(folder: Path, progress: Progress) -> None:
    """Compare large files with their SHA-256, which is their name in the hub's cache; a wrong one is removed."""
    files = [file.resolve() for file in folder.rglob("*") if file.is_symlink() and _SHA256.match(file.resolve().name)]
    total, done = sum(file.stat().st_size for file in files), 0
    for file in files:
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
                done += len(block)
                progress("checking", done, total)
        if digest.hexdigest() != file.name:
            file.unlink()
            raise ModelError(f"a file of {folder} had a wrong checksum, and was removed: pull again to fetch it anew")
