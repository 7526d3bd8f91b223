"""Pictures for the tests, made here: each says its number by its colour."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def picture(number: int, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> Image.Image:
    """Of one colour, (width, height)."""
    image = Image.new("RGB", size, (10 * number, 200, 30))
    return image.convert(mode)


def encoded(number: int, form: str = "PNG") -> bytes:
    """The bytes of a file."""
    out = io.BytesIO()
    picture(number).save(out, form)
    return out.getvalue()


def colour(image: Image.Image) -> int:
    """The number that a picture says."""
    return round(np.asarray(image.convert("RGB"), float)[..., 0].mean() / 10)


def write_folder(root: Path, count: int = 6, captions: bool = False) -> Path:
    """Pictures in two classes, or beside one another with captions."""
    lines = []
    for number in range(count):
        place = root if captions else root / ("cats" if number % 2 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        picture(number, (8 + number, 8)).save(place / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"colour {number}"}))
    if captions:
        (root / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return root


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """A shard."""
    with tarfile.open(path, "w") as shard:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    return path
