"""A row of measurements, and the file that holds them: one JSON object a line, appended whole.

A writer that is killed leaves at most one torn line, the last. Readers pass over it and the next writer cuts it off.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from fewstep.benchmark.loading import PLAIN, Loading
from fewstep.core.errors import InvalidInput
from fewstep.measure.figure import Figure
from fewstep.tuning.certificate import Interval

VERSION = 1
KINDS = ("untuned", "tuned")
PRECISIONS = ("float32", "bfloat16", "float16")


class Model(NamedTuple):
    """Whose images were measured; `source` is what was given to `fewstep.load`, with `loading`."""

    name: str
    digest: str
    source: str
    loading: Loading = PLAIN

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `loading` is there only where it says something."""
        told = {"loading": self.loading.given} if self.loading.given else {}
        return {"name": self.name, "digest": self.digest, "source": self.source, **told}

    @classmethod
    def from_json(cls, document: Any) -> Model:
        """The inverse of `to_json`. Raises `InvalidInput` for missing or unknown fields, naming them."""
        known = _fields_of("model", document, cls._fields, ("loading",))
        names = tuple(each.name for each in fields(Loading))
        return cls(**{**known, "loading": Loading(**_fields_of("loading", known.get("loading", {}), names, names))})


class Machine(NamedTuple):
    """Where the seconds of a row were measured, and with which versions."""

    processor: str
    threads: int
    device: str
    torch: str
    fewstep: str


@dataclass(frozen=True)
class Run:
    """One plan on one model with one guidance and one precision, measured on the same noise as all others.

    Attributes:
        key: 16 hexadecimal digits over all that decides the figures, but not the seconds; see `key_of`.
        plan: digest of the plan; `plan_file` is where it lies beside the rows, for one that came from a file.
        kind: "untuned" for a sampler on a grid, "tuned" for a plan that was made for the model.
        guidance: scale; None where there is nothing to guide.
        nfe: rows of the plan; `evaluations`: of networks for an image, as counted.
        images: how many were drawn; `lost`: how many of them were not finite. Figures are of the others.
        conditions: digest of the labels or prompts.
        figures: by name: error, typical, quality, psnr, diversity, saturation, adherence, clip, distance; without
            replicates. Those that were not to be had are absent.
        seconds: for an image, of synchronised clocks; `memory`: peak bytes of a batch, None where unknown.
    """

    key: str
    model: Model
    plan: str
    kind: str
    plan_file: str | None
    sampler: str
    options: Mapping[str, Any]
    grid: str
    grid_options: Mapping[str, Any]
    steps: int
    guidance: float | None
    precision: str
    nfe: int
    evaluations: float
    images: int
    lost: int
    seed: int
    conditions: str
    figures: Mapping[str, Figure]
    seconds: Interval
    memory: int | None
    machine: Machine

    def __post_init__(self) -> None:
        _check(self)

    @property
    def name(self) -> str:
        """Sampler and grid, for people."""
        own = f"{self.sampler} on {self.grid}"
        return own if self.kind == "untuned" else f"{own}, tuned"

    @property
    def foreign(self) -> bool:
        """Whether its plan was tuned for another model, so that drawing with it takes --force."""
        return self.kind == "tuned" and self.options.get("model") not in (None, self.model.digest)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        figures = {name: figure.to_json() for name, figure in self.figures.items()}
        for figure in figures.values():
            del figure["replicates"]
        nested = {
            "model": self.model.to_json(),
            "figures": figures,
            "seconds": self.seconds._asdict(),
            "machine": self.machine._asdict(),
            "options": dict(self.options),
            "grid_options": dict(self.grid_options),
        }
        return {"version": VERSION} | {each: nested.get(each, getattr(self, each)) for each in _FIELDS}

    @classmethod
    def from_json(cls, document: Any) -> Run:
        """The inverse of `to_json`.

        Raises:
            InvalidInput: for another version, missing or unknown fields, and values of another kind, naming them.
        """
        if not isinstance(document, Mapping):
            raise InvalidInput(f"a row is a JSON object, got {type(document).__name__}")
        if document.get("version") != VERSION:
            raise InvalidInput(
                f"a row has version {VERSION}, this one has {document.get('version')!r}: measure again with "
                "`fewstep bench`"
            )
        known = _fields_of("a row", document, ("version", *_FIELDS))
        del known["version"]
        known["model"] = Model.from_json(known["model"])
        for name, kind in (("machine", Machine), ("seconds", Interval)):
            known[name] = kind(**_fields_of(name, known[name], kind._fields))
        if not isinstance(known["figures"], Mapping):
            raise InvalidInput(f"figures must be an object, got {known['figures']!r:.60}")
        known["figures"] = {name: _figure(name, value) for name, value in known["figures"].items()}
        return cls(**known)


_FIELDS = tuple(each.name for each in fields(Run))


def key_of(facts: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of a SHA-256 over JSON values, whatever their order."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def read_runs(path: str | os.PathLike[str]) -> list[Run]:
    """The rows of a file, in order; a torn last line is passed over.

    Raises:
        FileNotFoundError: nothing is at `path`.
        InvalidInput: a line is no row, or a key is there twice. The message names the line.
    """
    whole, _ = _split(Path(path).read_bytes())
    runs: dict[str, tuple[int, Run]] = {}
    for number, line in enumerate(whole, 1):
        try:
            run = Run.from_json(json.loads(line))
        except (ValueError, RecursionError) as error:  # InvalidInput, no JSON, no UTF-8
            raise InvalidInput(f"{path}, line {number}: {error}. Mend or delete the line") from error
        if run.key in runs:
            raise InvalidInput(
                f"{path}, line {number}: it has the key {run.key} of line {runs[run.key][0]}. Delete one of the lines"
            )
        runs[run.key] = (number, run)
    return [run for _, run in runs.values()]


class Rows:
    """A file of rows that is added to; `runs` are those in it. One writer at a time: see `fewstep.benchmark.folder`.

    A torn last line is cut off at once. Raises `InvalidInput` as `read_runs` does, and then leaves the file alone.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.runs: list[Run] = []
        self._keys: set[str] = set()
        if not self.path.exists():
            return
        self.runs = read_runs(self.path)
        self._keys = {run.key for run in self.runs}
        _, torn = _split(self.path.read_bytes())
        if torn:
            os.truncate(self.path, self.path.stat().st_size - torn)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def append(self, run: Run) -> None:
        """Write one row, in one piece, to the disk. Raises `InvalidInput` for a key that is there."""
        if run.key in self:
            raise InvalidInput(f"{self.path} has a row of key {run.key} already")
        line = json.dumps(run.to_json(), allow_nan=False).encode() + b"\n"
        with self.path.open("ab", buffering=0) as file:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        self.runs.append(run)
        self._keys.add(run.key)


def _split(content: bytes) -> tuple[list[bytes], int]:
    """The whole lines, and how many bytes follow the last."""
    *whole, rest = content.split(b"\n")
    return whole, len(rest)


def _fields_of(what: str, document: Any, known: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(document, Mapping):
        raise InvalidInput(f"{what} must be an object, got {document!r:.60}")
    lacks = sorted(set(known) - set(optional) - set(document))
    extra = sorted(map(str, set(document) - set(known)))
    if lacks or extra:
        told = [f"lacks {', '.join(lacks)}"] * bool(lacks) + [f"has unknown {', '.join(extra)}"] * bool(extra)
        raise InvalidInput(f"{what} {' and '.join(told)}")
    return dict(document)


def _figure(name: str, document: Any) -> Figure:
    try:
        if not isinstance(document, Mapping):
            raise InvalidInput(f"it must be an object, got {document!r:.60}")
        figure = Figure.from_json({**document, "replicates": ()})
    except InvalidInput as error:
        raise InvalidInput(f"figure {name!r}: {error}") from error
    for each in ("value", "low", "high"):
        if not _number(getattr(figure, each)):
            raise InvalidInput(f"figure {name!r}: {each} must be a finite number, got {getattr(figure, each)!r:.60}")
    return figure


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _hex(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 16 and all(digit in "0123456789abcdef" for digit in value)


_KINDS: tuple[tuple[str, Callable[[Any], bool], tuple[str, ...]], ...] = (
    ("16 hexadecimal digits", _hex, ("key",)),
    ("a text", _text, ("plan", "sampler", "grid", "conditions")),
    ("a text or null", lambda value: value is None or _text(value), ("plan_file",)),
    (f"one of {', '.join(KINDS)}", lambda value: value in KINDS, ("kind",)),
    (f"one of {', '.join(PRECISIONS)}", lambda value: value in PRECISIONS, ("precision",)),
    ("an object", lambda value: isinstance(value, Mapping), ("options", "grid_options", "figures")),
    ("a whole number of at least 0", _count, ("steps", "nfe", "images", "lost", "seed")),
    ("a number of at least 0", lambda value: _number(value) and value >= 0, ("evaluations",)),
    ("a finite number or null", lambda value: value is None or _number(value), ("guidance",)),
    ("a whole number or null", lambda value: value is None or _count(value), ("memory",)),
    ("three finite numbers", lambda value: all(map(_number, value)), ("seconds",)),
    ("texts", lambda value: all(map(_text, value[:3])), ("model",)),
)


def _check(run: Run) -> None:
    """Raise `InvalidInput` for a field of another kind, naming it."""
    for words, right, names in _KINDS:
        for name in names:
            if not right(getattr(run, name)):
                raise InvalidInput(f"{name} of a row must be {words}, got {getattr(run, name)!r:.60}")
    if run.lost > run.images:
        raise InvalidInput(f"a row of {run.images} images cannot have lost {run.lost}")
