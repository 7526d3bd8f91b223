"""The numbers of a figure as a file: JSON with all of them, or CSV with a table."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Protocol

from fewstep.core.errors import InvalidInput

SUFFIXES = (".json", ".csv")


class Numbers(Protocol):
    """What every figure's numbers can do."""

    @property
    def finding(self) -> str:
        """What they say, in a sentence."""
        ...

    def document(self) -> dict[str, Any]:
        """All of them as JSON-serialisable data."""
        ...

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """Names of columns, and rows; None is an empty cell."""
        ...


def check_suffix(path: str | Path) -> str:
    """The suffix of `path`, in small letters; raises `InvalidInput` for other kinds of files."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(f"data are written as {' or '.join(SUFFIXES)}, got {str(path)!r}: give such a name")
    return suffix


def content(numbers: Numbers, suffix: str = ".json") -> bytes:
    """The content of a file of that suffix."""
    if check_suffix(f"data{suffix}") == ".json":
        return (json.dumps(numbers.document(), allow_nan=False) + "\n").encode()
    columns, rows = numbers.table()
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerows([columns, *rows])
    return file.getvalue().encode()
