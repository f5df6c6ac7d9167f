"""Images of dialogues: read from bytes, files and data URLs, checked by their content, and sent as they are.

What is checked is what an endpoint would stumble over: a format that is not PNG, JPEG or WebP whatever the name says, a file
that breaks off, several frames, too many bytes, too many pixels. The number of pixels is read from the header, before anything
is decoded. Needs Pillow (extra ``eval``).
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from ...errors import require

_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_DATA_URL = re.compile(r"data:(?P<type>[\w.+/-]*)(?P<options>(?:;[\w.=+-]+)*),(?P<data>.*)", re.DOTALL | re.IGNORECASE)
_NAMED = 80  # characters of a path or URL in an error


@dataclass(frozen=True)
class ImageLimits:
    """What an image may have at most; beyond, endpoints refuse it or shrink it to nothing."""

    megabytes: float = 20.0
    megapixels: float = 40.0


@dataclass(frozen=True)
class Picture:
    """An image.

    Attributes:
        data: the file, as it was found.
        format: ``PNG``, ``JPEG`` or ``WEBP``, by its content.
        width, height: in pixels.
    """

    preview_side: ClassVar[int] = 1024
    """Longest side of a preview, in pixels."""

    data: bytes = field(repr=False)
    format: str
    width: int
    height: int

    @cached_property
    def digest(self) -> str:
        """Hash of the file."""
        return sha256(self.data).hexdigest()[:16]

    @property
    def url(self) -> str:
        """The image as a data URL."""
        return f"data:{_TYPES[self.format]};base64,{base64.b64encode(self.data).decode()}"

    def described(self) -> dict[str, Any]:
        """What is known of it, as JSON."""
        size = {"width": self.width, "height": self.height, "bytes": len(self.data)}
        return {"digest": self.digest, "format": self.format, **size}

    def preview(self) -> bytes:
        """A small JPEG of it, for pages."""
        pillow = require("PIL.Image", "eval")
        with warnings.catch_warnings(), pillow.open(io.BytesIO(self.data)) as opened:
            warnings.simplefilter("ignore")
            opened.draft("RGB", (self.preview_side, self.preview_side))  # a large JPEG is decoded at a fraction of its size
            opened.thumbnail((self.preview_side, self.preview_side))
            own = opened.convert("RGBA")
            ground = pillow.new("RGB", own.size, "white")
            ground.paste(own, mask=own.getchannel("A"))
        written = io.BytesIO()
        ground.save(written, "JPEG", quality=82)
        return written.getvalue()


def read_picture(value: Any, folder: Path | None, limits: ImageLimits) -> Picture:
    """The image of a cell: bytes, a path, a data URL, or an object with ``bytes`` and ``path`` as data sets have it.

    Args:
        folder: what relative paths start from; `None` if there are no files beside the data.

    Raises:
        ValueError: it cannot be read, or is not such an image; the message says what it is.
        ExtraError: Pillow is not installed.
    """
    if isinstance(value, dict):
        if not {"bytes", "path"} & value.keys():
            raise ValueError(f"the image is an object with {', '.join(value) or 'nothing'}: it needs bytes or path")
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, str):
        value = _from_url(value, limits) if value[:5].lower() == "data:" else _from_file(value, folder, limits)
    if not isinstance(value, bytes | bytearray):
        raise ValueError(f"the image is {type(value).__name__}: give bytes, a path, or a data URL")
    return _checked(bytes(value), limits)


def _from_url(url: str, limits: ImageLimits) -> bytes:
    found = _DATA_URL.fullmatch(url)
    if found is None or ";base64" not in found["options"].lower():
        raise ValueError(f"the data URL {url[:40]!r} is not valid: it begins with data:image/png;base64,")
    if len(found["data"]) * 3 / 4 > limits.megabytes * 1e6 + 3:
        raise ValueError(_too_many_bytes(len(found["data"]) * 3 // 4, limits))
    try:
        return base64.b64decode(re.sub(r"\s", "", found["data"]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the data URL is not base64 ({error})") from None


def _from_file(name: str, folder: Path | None, limits: ImageLimits) -> bytes:
    shown = repr(name if len(name) <= _NAMED else f"{name[:_NAMED]}...")
    if re.match(r"[a-z]+://", name, re.IGNORECASE):
        raise ValueError(f"the image {shown} is an address: nothing is fetched, give a file or a data URL")
    if not name or "\0" in name:
        raise ValueError(f"the image {shown} is no path")
    path = Path(name).expanduser()
    if not path.is_absolute():
        if folder is None:
            raise ValueError(f"the image {shown} is a path, and there are no files beside the data: embed it")
        path = folder / path
    try:
        if not path.is_file():
            raise ValueError(f"there is no image file {str(path)!r}: paths start from the folder of the data file")
        if path.stat().st_size > limits.megabytes * 1e6:
            raise ValueError(_too_many_bytes(path.stat().st_size, limits))
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"the image {shown} cannot be read ({error.strerror or error})") from None


def _too_many_bytes(size: int, limits: ImageLimits) -> str:
    return f"the image has {size / 1e6:.1f} MB, more than {limits.megabytes:g}: shrink it, or raise --max-image-megabytes"


def _checked(data: bytes, limits: ImageLimits) -> Picture:
    """The image, decoded once to see that it is whole."""
    if not data:
        raise ValueError("the image is empty")
    if len(data) > limits.megabytes * 1e6:
        raise ValueError(_too_many_bytes(len(data), limits))
    pillow = require("PIL.Image", "eval")
    many = f"more than {limits.megapixels:g}: shrink it, or raise --max-image-megapixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images, and of what it repairs
            with pillow.open(io.BytesIO(data), formats=tuple(_TYPES)) as opened:
                width, height = opened.size
                if width * height > limits.megapixels * 1e6:
                    raise ValueError(f"the image has {width} x {height} = {width * height / 1e6:.1f} megapixels, {many}")
                # A JPEG of a phone may hold further pictures behind the first; endpoints see the first.
                kind = "JPEG" if opened.format == "MPO" else str(opened.format)
                frames = int(getattr(opened, "n_frames", 1))
                if frames > 1 and kind != "JPEG":
                    raise ValueError(f"the image has {frames} frames: save one of them")
                opened.load()
    except pillow.DecompressionBombError:
        raise ValueError(f"the image has {many}") from None
    except pillow.UnidentifiedImageError:
        raise ValueError(f"the image is no PNG, JPEG or WebP (it begins with {data[:12]!r}): convert it") from None
    except ValueError as error:
        if str(error).startswith("the image "):
            raise
        raise ValueError(f"the image cannot be decoded ({error}): save it anew") from None
    except (OSError, SyntaxError, EOFError, IndexError, TypeError, OverflowError, MemoryError) as error:  # of Pillow's decoders
        raise ValueError(f"the image cannot be decoded ({error or type(error).__name__}): save it anew") from None
    return Picture(data, kind, width, height)
