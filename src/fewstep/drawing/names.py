"""The names of all pictures: of one picture, of each image of a folder, and of one that is drawn again.

A name that nobody gave holds a digest, so that another drawing does not replace the picture before.
"""

from __future__ import annotations

import re
from pathlib import Path

from fewstep.drawing.drawing import Drawing

OUT = Path("out")


def title(subject: str | int | None) -> str:
    """A short name of an image that a file may have: the first words of its prompt, or its label."""
    if isinstance(subject, str):
        words = re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")[:40].strip("-")
        return words or "image"
    return "none" if subject is None else f"label{subject}"


def picture(model: str, drawing: Drawing) -> Path:
    """Of the picture of a drawing, unless somebody names it."""
    return OUT / f"{model}-{drawing.sampling.name}-{drawing.digest[:8]}.png"


def task(source: Path, task: str, model: str, digest: str) -> Path:
    """Of a picture that was made from another, unless somebody names it; `digest` is of all that it was made from."""
    return OUT / f"{source.stem[:100]}-{task}-{model}-{digest[:8]}.png"


def between(model: str, digest: str) -> Path:
    """Of the pictures between two others, unless somebody names it."""
    return OUT / f"{model}-interpolate-{digest[:8]}.png"


def again(path: Path, digest: str) -> Path:
    """Of a picture that is drawn again; `digest` is of its drawing."""
    return OUT / f"{path.stem[:100]}-again-{digest[:8]}.png"


def one_of(index: int, subject: str | int | None) -> str:
    """Of one image beside the sheet of all of them."""
    return f"{index:04}-{title(subject)}.png"


def in_batch(index: int, subject: str | int | None, seed: int) -> str:
    """Of one image of a folder of many."""
    return f"{index:06}-{title(subject)}-seed{seed}.png"
