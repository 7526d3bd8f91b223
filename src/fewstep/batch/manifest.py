"""The record of a job: one line of JSON for each image, appended when the image's file is safely there.

Lines of a batch are appended in one write and synchronised. What a crash can leave is a last line without its end, or a
batch without its last lines; opening cuts both off, and that batch is drawn again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from fewstep.core.errors import InvalidInput

Line = dict[str, Any]


class Manifest:
    """The lines of `path` for images that are drawn in the order of `batches`, which hold their indices.

    Attributes:
        lines: by index of the image, of whole batches only.
        done: how many batches they are.

    Raises:
        InvalidInput: a line is not JSON, or is of another image than the next one.
    """

    def __init__(self, path: Path, batches: Sequence[Sequence[int]]):
        self.path, self.batches = path, batches
        self.lines: dict[int, Line] = {}
        self.done = 0
        if path.exists():
            self._repair(path.read_bytes())

    def append(self, lines: Sequence[Line]) -> None:
        """Add the lines of the next batch, and return when they are on the disk."""
        if [line["index"] for line in lines] != list(self.batches[self.done]):
            raise InvalidInput(f"batch {self.done} of the manifest has other images than its lines are for")
        append_synced(self.path, b"".join(_encoded(line) for line in lines))
        self.lines |= {line["index"]: line for line in lines}
        self.done += 1

    def _repair(self, content: bytes) -> None:
        """Read whole batches and cut off the rest."""
        order, ends, kept = list(chain(*self.batches)), [0], []
        for number, text in enumerate(content.split(b"\n")[:-1]):
            ends.append(ends[-1] + len(text) + 1)
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if number >= len(order) or not isinstance(line, dict) or line.get("index") != order[number]:
                raise InvalidInput(
                    f"line {number + 1} of {self.path} is damaged or not of this job: restore the file, or draw into "
                    "another folder"
                )
            kept.append(line)
        whole = 0
        for batch in self.batches:
            if whole + len(batch) > len(kept):
                break
            whole, self.done = whole + len(batch), self.done + 1
        self.lines = {line["index"]: line for line in kept[:whole]}
        if ends[whole] < len(content):
            with self.path.open("r+b") as file:
                file.truncate(ends[whole])
                os.fsync(file.fileno())


def append_synced(path: Path, content: bytes) -> None:
    """Append to a file, made where missing, and return when it is on the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        while content:
            content = content[os.write(handle, content) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def cut_torn(path: Path) -> None:
    """Cut off a last line without its end. A file that is not there is left so."""
    content = path.read_bytes() if path.exists() else b""
    if content and not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _encoded(line: Line) -> bytes:
    return json.dumps(line, ensure_ascii=False, allow_nan=False).encode() + b"\n"
