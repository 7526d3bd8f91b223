"""Where the measurements of a model lie, and where new ones go.

out/bench-NAME            the usual folder, of `fewstep bench` too
out/bench-NAME-DIGEST     where that one is of another model of this name: four digits of the digest
FOLDER-THREADSt-MACHINE   seconds of this machine, where FOLDER has the same rows with those of another: four digits
                          that name the processor, the device and the model
"""

from __future__ import annotations

import glob
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from fewstep.benchmark import Machine, Run, read_runs
from fewstep.benchmark.row import key_of
from fewstep.core.errors import InvalidInput

OUT, RUNS, CERTIFICATE = Path("out"), "runs.jsonl", ".certificate.json"


def usual_folders(name: str) -> list[Path]:
    """The folders of benches in out/ that may be of a model of this name."""
    home = home_of(name)
    return [path for path in (home, *sorted(OUT.glob(f"{glob.escape(home.name)}-*"))) if (path / RUNS).is_file()]


def with_timings(paths: Iterable[str | os.PathLike[str]], digest: str, here: Machine) -> list[Path]:
    """Each path, and after a folder the one beside it with seconds of this machine, where that is there."""
    found: list[Path] = []
    for path in map(Path, paths):
        beside = timings_of(path, digest, here)
        found += [path, beside] if path.is_dir() and (beside / RUNS).is_file() else [path]
    return list(dict.fromkeys(found))


def timings_of(folder: Path, digest: str, here: Machine) -> Path:
    """The folder for seconds of this machine beside one with those of another."""
    facts = key_of({"processor": here.processor, "device": here.device, "model": digest})
    return folder.with_name(f"{folder.name}-{here.threads}t-{facts[:4]}")


def is_fresh(path: Path) -> bool:
    """Whether a path is a folder to be: nothing is there, or an empty folder, or a bench without rows yet."""
    if not path.exists():
        return path.suffix not in (".json", ".jsonl")
    if not path.is_dir() or (path / RUNS).exists() or any(path.glob(f"*{CERTIFICATE}")):
        return False
    return (path / "bench.json").is_file() or not any(path.iterdir())


def folder_for(
    name: str, digest: str, here: Machine, paths: Sequence[str | os.PathLike[str]] = (), timed: bool = False
) -> Path:
    """Where to measure into: the first folder of a bench in `paths`, else the first that is to be, else a usual one.

    `timed`: whether seconds of this machine are wanted. A row that is in the folder is not measured again, so where
    those there are of another machine or number of threads it is the folder beside it, which begins with the converged
    solutions that are known.
    """
    given = [*(path for path in map(Path, paths) if (path / RUNS).is_file()), *filter(is_fresh, map(Path, paths))]
    own = home_of(name), home_of(f"{name}-{digest[:4]}")
    folder = next(iter(given), None) or next((path for path in own if _is_of(path, digest)), own[-1])
    if not timed or all(is_here(run.machine, here) for run in _rows(folder) if run.machine.device == here.device):
        return folder
    beside = timings_of(folder, digest, here)
    for solved in (*folder.glob("converged/*.safetensors"), *folder.glob("pictures/converged-*.png")):
        copy = beside / solved.relative_to(folder)
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(solved, copy)
    return beside


def is_here(machine: Machine, here: Machine) -> bool:
    """Whether seconds of one machine hold for the other."""
    return (machine.processor, machine.threads, machine.device) == (here.processor, here.threads, here.device)


def home_of(name: str) -> Path:
    """The usual folder."""
    return OUT / f"bench-{name}"


def _rows(folder: Path) -> list[Run]:
    return read_runs(folder / RUNS) if (folder / RUNS).is_file() else []


def _is_of(folder: Path, digest: str) -> bool:
    """Whether all that is in a folder is of a model; not where it cannot be read."""
    try:
        found = {run.model.digest for run in _rows(folder)}
        if (folder / "bench.json").is_file():
            found.add(json.loads((folder / "bench.json").read_bytes())["model"]["digest"])
    except (InvalidInput, ValueError, KeyError, TypeError):
        return False
    return found <= {digest}
