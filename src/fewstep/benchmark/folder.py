"""The folder of a bench: rows, plans, converged solutions, small pictures, the page; and who may write to it.

runs.jsonl           a row a line
bench.json           the model, and the commands that added rows
plans/DIGEST.json    plans that came from files
converged/KEY.safetensors, pictures/KEY.png
index.html
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fewstep.benchmark.row import Model, Rows
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.files import write_whole

VERSION = 1
LOCK = ".lock"


class Folder:
    """The files of one model's bench. Use `opened`, which lets one process in at a time."""

    def __init__(self, path: Path, model: Model, hint: str = ""):
        self.path, self.model = path, model
        document = _document(path / "bench.json")
        known = document.get("model", {}).get("digest", model.digest)
        self.commands: list[str] = document.get("commands", [])
        self.rows = Rows(path / "runs.jsonl")
        for digest in (known, *(run.model.digest for run in self.rows.runs)):
            if digest != model.digest:
                raise InvalidInput(
                    f"{path} holds measurements of a model with digest {digest}, this is {model.name!r} with digest "
                    f"{model.digest}: give another folder with --output{hint}"
                )

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "index.html"

    def converged(self, key: str) -> Path:
        """Where a converged solution lies."""
        return self._inner("converged") / f"{key}.safetensors"

    def picture(self, key: str) -> Path:
        """Where the small picture of a row, or of a converged solution, lies."""
        return self._inner("pictures") / f"{key}.png"

    def keep(self, plan: Plan) -> str:
        """Put a plan beside the rows; returns its place in the folder."""
        file = self._inner("plans") / f"{plan.digest}.json"
        if not file.exists():
            plan.save(file)
        return f"plans/{file.name}"

    def note(self, command: str) -> None:
        """Remember a command that adds rows."""
        if command in self.commands and (self.path / "bench.json").exists():
            return
        self.commands = [*self.commands, command]
        document = {"version": VERSION, "model": self.model.to_json(), "commands": self.commands}
        write_whole(self.path / "bench.json", json.dumps(document, indent=2).encode())

    def _inner(self, name: str) -> Path:
        inner = self.path / name
        inner.mkdir(exist_ok=True)
        return inner


@contextmanager
def opened(path: str | os.PathLike[str], model: Model, hint: str = "") -> Iterator[Folder]:
    """The folder, made where it is not there, for this process alone until the end. One that was not there, or empty,
    is left so where an error comes before there is a row or a converged solution.

    The error about a folder of another model ends in the `hint`.

    Raises:
        InvalidInput: another process writes to it, it is of another model, or its files are damaged.
    """
    place = Path(path)
    if place.exists() and not place.is_dir():
        raise InvalidInput(f"{place} is a file, and the rows need a folder: give another --output")
    there = place.is_dir()
    empty = not there or not any(place.iterdir())
    place.mkdir(parents=True, exist_ok=True)
    lock = place / LOCK
    # The system lets go of the lock of a process that was killed; the empty file stays and means nothing.
    with lock.open("ab") as file:
        if not _locked(file):
            raise InvalidInput(f"another process is measuring into {place}: wait for it, or give another --output")
        try:
            yield Folder(place, model, hint)
        except BaseException:
            if empty and not any(file.suffix in (".jsonl", ".safetensors") for file in place.rglob("*")):
                shutil.rmtree(place)
                if there:
                    place.mkdir()
            raise


def _locked(file: Any) -> bool:
    """Whether the file is ours alone now."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _document(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        document = json.loads(file.read_bytes())
        if document["version"] != VERSION or not isinstance(document["model"]["digest"], str):
            raise ValueError(f"version {document['version']!r}")
        if not all(isinstance(command, str) for command in document["commands"]):
            raise ValueError("commands that are no texts")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInput(
            f"{file} is no description of a bench ({error!r}): delete it, it is written again"
        ) from error
    return document
