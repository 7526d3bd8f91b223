"""Where results lie: the folder of a bench, who may write to it, and which folder is whose.

FOLDER/runs.jsonl           a measurement a line
FOLDER/bench.json           the model, and the commands that measured
FOLDER/plans/DIGEST.json    plans that came from files
FOLDER/converged/KEY.safetensors, FOLDER/pictures/KEY.png
FOLDER/guidance/KEY.safetensors  what was read of the images of a guidance scale
FOLDER/index.html           the page

out/bench-NAME              the usual folder
out/bench-NAME-DIGEST       where that one is of another model of this name: four digits of the digest
FOLDER-THREADSt-MACHINE     seconds of this machine, where FOLDER has the same plans with those of another: four digits
                            that name the processor, the device and the model
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, with_config

from fewstep.benchmark.measured import Measured, ModelFacts, key_of, read_json
from fewstep.benchmark.results import ResultFile, read_results
from fewstep.benchmark.settings import STRICT
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.files import write_whole
from fewstep.run.machine import Machine, is_here

OUT, RESULTS, CERTIFICATE = Path("out"), "runs.jsonl", ".certificate.json"
DESCRIPTION, LOCK = "bench.json", ".lock"


@with_config(STRICT)
@dataclass(frozen=True)
class _Description:
    """What `bench.json` says."""

    model: ModelFacts
    commands: list[str]
    version: Literal[2] = 2


_DESCRIPTION = TypeAdapter(_Description)


class Folder:
    """The files of one model's bench. Use `opened`, which lets one process in at a time."""

    def __init__(self, path: Path, model: ModelFacts, hint: str = ""):
        self.path, self.model = path, model
        known = _described(path)
        self.commands = [] if known is None else known.commands
        self.results = ResultFile(path / RESULTS)
        for digest in _digests(self.results.results, known):
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
        """Where the small picture of a measurement, or of a converged solution, lies."""
        return self._inner("pictures") / f"{key}.png"

    def scale(self, key: str) -> Path:
        """Where what was read of the images of a guidance scale lies."""
        return self._inner("guidance") / f"{key}.safetensors"

    def keep(self, plan: Plan) -> str:
        """Put a plan beside the results; returns its place in the folder."""
        file = self._inner("plans") / f"{plan.digest}.json"
        if not file.exists():
            plan.save(file)
        return f"plans/{file.name}"

    def note(self, command: str) -> None:
        """Remember a command that measured."""
        if command in self.commands and (self.path / DESCRIPTION).exists():
            return
        self.commands = [*self.commands, command]
        self.describe()

    def describe(self) -> None:
        """Write whose bench it is."""
        document = _DESCRIPTION.dump_json(_Description(self.model, self.commands), indent=2)
        write_whole(self.path / DESCRIPTION, document)

    def _inner(self, name: str) -> Path:
        inner = self.path / name
        inner.mkdir(exist_ok=True)
        return inner


@contextmanager
def opened(path: str | os.PathLike[str], model: ModelFacts, hint: str = "") -> Iterator[Folder]:
    """The folder, made where it is not there, for this process alone until the end. One that was not there, or empty,
    is left so where an error comes before anything is measured or solved.

    The error about a folder of another model ends in the `hint`.

    Raises:
        InvalidInput: another process writes to it, it is of another model, or its files are damaged.
    """
    place = Path(path)
    if place.exists() and not place.is_dir():
        raise InvalidInput(f"{place} is a file, and results need a folder: give another --output")
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


def usual_folders(name: str) -> list[Path]:
    """The folders of benches in out/ that may be of a model of this name."""
    home = home_of(name)
    return [path for path in (home, *sorted(OUT.glob(f"{glob.escape(home.name)}-*"))) if (path / RESULTS).is_file()]


def with_timings(paths: Iterable[str | os.PathLike[str]], digest: str, here: Machine) -> list[Path]:
    """Each path, and after a folder the one beside it with seconds of this machine, where that is there."""
    found: list[Path] = []
    for path in map(Path, paths):
        beside = timings_of(path, digest, here)
        found += [path, beside] if path.is_dir() and (beside / RESULTS).is_file() else [path]
    return list(dict.fromkeys(found))


def timings_of(folder: Path, digest: str, here: Machine) -> Path:
    """The folder for seconds of this machine beside one with those of another."""
    facts = key_of({"processor": here.processor, "device": here.device, "model": digest})
    return folder.with_name(f"{folder.name}-{here.threads}t-{facts[:4]}")


def is_fresh(path: Path) -> bool:
    """Whether a path is a folder to be: nothing is there, or an empty folder, or a bench without results yet."""
    if not path.exists():
        return path.suffix not in (".json", ".jsonl")
    if not path.is_dir() or (path / RESULTS).exists() or any(path.glob(f"*{CERTIFICATE}")):
        return False
    return (path / DESCRIPTION).is_file() or not any(path.iterdir())


def folder_for(
    name: str, digest: str, here: Machine, paths: Sequence[str | os.PathLike[str]] = (), timed: bool = False
) -> Path:
    """Where to measure into: the first folder of a bench in `paths`, else the first that is to be, else a usual one.

    `timed`: whether seconds of this machine are wanted. What is in the folder is not measured again, so where
    those there are of another machine or number of threads it is the folder beside it, which begins with the converged
    solutions that are known.
    """
    given = [*(path for path in map(Path, paths) if (path / RESULTS).is_file()), *filter(is_fresh, map(Path, paths))]
    own = home_of(name), home_of(f"{name}-{digest[:4]}")
    folder = next(iter(given), None) or next((path for path in own if _is_of(path, digest)), own[-1])
    if not timed or all(is_here(one.machine, here) for one in results_in(folder) if one.machine.device == here.device):
        return folder
    beside = timings_of(folder, digest, here)
    for solved in (*folder.glob("converged/*.safetensors"), *folder.glob("pictures/converged-*.png")):
        copy = beside / solved.relative_to(folder)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(solved, copy)
    return beside


def home_of(name: str) -> Path:
    """The usual folder."""
    return OUT / f"bench-{name}"


def results_in(folder: Path) -> list[Measured]:
    """The measurements in a folder; none where it has no file of them."""
    return read_results(folder / RESULTS) if (folder / RESULTS).is_file() else []


def _described(folder: Path) -> _Description | None:
    """What the folder says of itself; None where it says nothing."""
    file = folder / DESCRIPTION
    try:
        return read_json(_DESCRIPTION, file.read_bytes()) if file.exists() else None
    except InvalidInput as error:
        raise InvalidInput(f"{file} does not describe a bench ({error}): delete it, it is written again") from error


def _digests(results: Iterable[Measured], described: _Description | None) -> set[str]:
    """Of the models that a folder is of."""
    return {one.model.digest for one in results} | ({described.model.digest} if described else set())


def _is_of(folder: Path, digest: str) -> bool:
    """Whether all that is in a folder is of a model; not where it cannot be read."""
    try:
        return _digests(results_in(folder), _described(folder)) <= {digest}
    except InvalidInput:
        return False
