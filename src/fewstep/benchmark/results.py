"""The file of results: one JSON object a line, appended whole.

A writer that is killed leaves at most one torn line, the last. Readers pass over it and the next writer cuts it off.
"""

from __future__ import annotations

import os
from pathlib import Path

from fewstep.benchmark.measured import Measured, line_of, read_line
from fewstep.core.errors import InvalidInput


def read_results(path: str | os.PathLike[str]) -> list[Measured]:
    """The measurements of a file, in order; a torn last line is passed over.

    Raises:
        FileNotFoundError: nothing is at `path`.
        InvalidInput: a line is not a measurement, or a key is there twice. The message names file, line and field.
    """
    whole, _ = _split(Path(path).read_bytes())
    found: dict[str, tuple[int, Measured]] = {}
    for number, line in enumerate(whole, 1):
        try:
            one = read_line(line)
        except InvalidInput as error:
            old = str(error).startswith("version")
            cure = "Measure again with `fewstep bench`" if old else "Mend or delete the line"
            raise InvalidInput(f"{path}, line {number}: {error}. {cure}") from error
        if one.key in found:
            raise InvalidInput(
                f"{path}, line {number}: it has the key {one.key} of line {found[one.key][0]}. Delete one of the lines"
            )
        found[one.key] = (number, one)
    return [one for _, one in found.values()]


class ResultFile:
    """A file of results that is added to; `results` are those in it. One writer at a time: see `folder.opened`.

    A torn last line is cut off at once. Raises `InvalidInput` as `read_results` does, and then leaves the file alone.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.results: list[Measured] = []
        self._keys: set[str] = set()
        if not self.path.exists():
            return
        self.results = read_results(self.path)
        self._keys = {one.key for one in self.results}
        _, torn = _split(self.path.read_bytes())
        if torn:
            os.truncate(self.path, self.path.stat().st_size - torn)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def append(self, measured: Measured) -> None:
        """Write one measurement, in one piece, to the disk.

        Raises `InvalidInput` for a key that is there, and for a measurement that could not be read again.
        """
        if measured.key in self:
            raise InvalidInput(f"{self.path} has a measurement of key {measured.key} already")
        line = line_of(measured)
        read_line(line)
        line += b"\n"
        with self.path.open("ab", buffering=0) as file:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        self.results.append(measured)
        self._keys.add(measured.key)


def _split(content: bytes) -> tuple[list[bytes], int]:
    """The whole lines, and how many bytes follow the last."""
    *whole, rest = content.split(b"\n")
    return whole, len(rest)
