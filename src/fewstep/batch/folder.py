"""Draw a batch of drawings into a folder, and go on where an interrupted run stopped.

    job.json        what decides the images; another batch is refused
    000000-*.png    one picture for each image, with its recipe
    manifest.jsonl  one line for each image, in the order of drawing; the same bytes if the run was interrupted
    timings.jsonl   seconds of each batch

A picture is written whole before its line. A batch whose lines are there is done. It is drawn again only where one of
its pictures is missing or was changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fewstep.batch.batch import Batch
from fewstep.batch.manifest import Line, Manifest, append_synced, cut_torn
from fewstep.batch.size import first_size, halved
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.drawing import Layout, names
from fewstep.files import write_whole
from fewstep.models.folder import read_json
from fewstep.pipeline.images import Images
from fewstep.solvers.compiler import compile

FORMAT = 2
JOB, MANIFEST, TIMINGS, LOCK = "job.json", "manifest.jsonl", "timings.jsonl", "job.lock"
_PART = re.compile(r"\.(job\.json|\d{6,}-[a-z0-9-]+\.png)\.[0-9a-f]{12}\.part")


class Done(NamedTuple):
    """How far a job is, after each batch: images there, images in all, images drawn by this call."""

    images: int
    of: int
    drawn: int


@dataclass
class BatchReport:
    """What a call of `draw_batch` did.

    Attributes:
        images: of the job; `drawn` of them by this call.
        batch: images that the network saw at once.
        lost: indices of images that are not finite; they have a line and no file.
        nfe: network evaluations for an image of this call, 0 where it drew none.
        seconds: of each stage in this call, by name; "save" is the writing.
    """

    folder: Path
    images: int
    batch: int = 0
    drawn: int = 0
    lost: list[int] = field(default_factory=list)
    nfe: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, images: Sequence[Images], saving: float) -> dict[str, float]:
        """Count a part; returns its seconds."""
        own: dict[str, float] = {"save": saving}
        together = len({id(one.timings) for one in images}) == 1  # drawn as one batch, which was timed once
        for one in images[:1] if together else images:
            for stage, seconds in one.timings.items():
                own[stage] = own.get(stage, 0.0) + seconds
        for stage, seconds in own.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.nfe = (self.nfe * self.drawn + sum(one.nfe for one in images)) / (self.drawn + len(images))
        self.drawn += len(images)
        return own


def draw_batch(
    batch: Batch,
    folder: str | os.PathLike[str],
    *,
    on_batch: Callable[[Done], None] | None = None,
) -> BatchReport:
    """Draw what is missing of `batch` in `folder`, which is made where missing.

    Raises:
        InvalidInput: the folder belongs to another batch, holds other files, is in use, or its manifest is damaged.
    """
    path = Path(folder)
    _check_folder(path)
    path.mkdir(parents=True, exist_ok=True)
    with _locked(path):
        for part in path.iterdir():
            if _PART.fullmatch(part.name):  # of a run that was killed while it wrote
                part.unlink()
        first: Sequence[Images] | None = None
        known = _known(path, batch)
        if known is None:
            batch, first = _sized(batch)
            write_whole(path / JOB, json.dumps({"format": FORMAT, **batch.identity()}, indent=2).encode())
        else:
            batch = replace(batch, size=known)
        return _draw(batch, path, first, on_batch)


def _draw(
    batch: Batch, folder: Path, first: Sequence[Images] | None, on_batch: Callable[[Done], None] | None
) -> BatchReport:
    parts = batch.parts()
    manifest = Manifest(folder / MANIFEST, parts)
    cut_torn(folder / TIMINGS)
    report = BatchReport(folder, len(batch.items), batch.size or 0)
    there = len(manifest.lines)
    for number, indices in enumerate(parts):
        known = [manifest.lines[i] for i in indices] if number < manifest.done else None
        if known is None or not all(_sound(folder, line) for line in known):
            images = first if number == 0 and first is not None else batch.draw(indices)
            lines, saving = _save(batch, folder, indices, images, known)
            if known is None:
                manifest.append(lines)
                there += len(lines)
            seconds = {stage: round(s, 6) for stage, s in report.add(images, saving).items()}
            timing = {"batch": number, "images": len(indices), "seconds": seconds}
            append_synced(folder / TIMINGS, json.dumps(timing).encode() + b"\n")
            if on_batch is not None:
                on_batch(Done(there, len(batch.items), report.drawn))
    report.lost = [index for index, line in sorted(manifest.lines.items()) if line["file"] is None]
    return report


def _save(
    batch: Batch, folder: Path, indices: Sequence[int], images: Sequence[Images], known: Sequence[Line] | None
) -> tuple[list[Line], float]:
    """Write the pictures of a part that are not there; their lines, and the seconds it took."""
    began = time.perf_counter()
    lines = []
    for place, (index, one) in enumerate(zip(indices, images, strict=True)):
        line = _line(batch, index, one)
        if bool(torch.isfinite(one.tensor).all()):
            item = batch.items[index]
            line["file"] = names.in_batch(index, item.subject, item.seed)
            content = one.encoded(Layout(columns=1, scale=batch.scale, gap=0))
            line["sha256"] = hashlib.sha256(content).hexdigest()
            old = None if known is None else known[place]
            if old is not None and old["sha256"] != line["sha256"]:
                raise InvalidInput(
                    f"{line['file']} of {folder} is missing or was changed, and drawn again it differs from what the "
                    "manifest says: another machine, or another version of fewstep or torch, drew it. Draw the batch "
                    "into a new folder"
                )
            if old is None or not _sound(folder, old):
                write_whole(folder / line["file"], content)
        lines.append(line)
    return lines, time.perf_counter() - began


def _line(batch: Batch, index: int, one: Images) -> Line:
    """The line of an image, its file still to be written: null stays where the image is not finite."""
    drawing = batch.drawing(index)
    drawing = drawing.but(sampling=drawing.sampling.beside())
    made = one.made.but(keep=None)
    line = {"index": index, "drawing": drawing.to_json(), "made": made.to_json(), "nfe": one.nfe}
    return {**line, "file": None, "sha256": None}


def _sound(folder: Path, line: Line) -> bool:
    """Whether the file of a line is there and is what was written."""
    if line["file"] is None:
        return True
    try:
        with (folder / os.path.basename(line["file"])).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == line["sha256"]
    except FileNotFoundError:
        return False


def _sized(batch: Batch) -> tuple[Batch, Sequence[Images] | None]:
    """The batch with a size; the first part with it, where finding the size has drawn it."""
    if batch.size is not None:
        return batch, None
    model, guidance = batch.model, batch.orders[0].drawing.guidance
    steps = 2 + guidance.options.get("zero_init", -1)  # some methods act in no single row
    by_row = isinstance(guidance.scale, tuple)  # these weights fit no other plan
    few = None if by_row else _short_plan(batch, steps)
    size = first_size(len(batch.items), model.device, lambda: replace(batch, size=1).draw([0], plan=few))
    if torch.device(model.device).type != "cuda":
        return replace(batch, size=size), None
    size, images = halved(size, lambda n: batch.draw(replace(batch, size=n).parts()[0]))
    return replace(batch, size=size), images


def _short_plan(batch: Batch, steps: int) -> Plan:
    drawing = batch.orders[0].drawing
    return compile("ddim", schedule=batch.model.schedule_at(drawing.height, drawing.width), steps=steps)


def _check_folder(folder: Path) -> None:
    """Raise `InvalidInput` for a folder that holds something and no batch of drawings."""
    if folder.exists() and not folder.is_dir():
        raise InvalidInput(f"{folder} is a file: give a folder for the images")
    if not folder.exists() or (folder / JOB).exists():
        return
    others = [path.name for path in folder.iterdir() if path.name != LOCK and not _PART.fullmatch(path.name)]
    if others:
        raise InvalidInput(f"{folder} holds other files, such as {sorted(others)[0]}: give a new or an empty folder")


def _known(folder: Path, batch: Batch) -> int | None:
    """The size of the batch in a folder, None for none. Raises `InvalidInput` where that is another batch."""
    if not (folder / JOB).exists():
        return None
    found, wanted = read_json(folder / JOB), {"format": FORMAT, **batch.identity()}
    if batch.size is None:
        wanted["batch"] = found.get("batch")
    differ = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if differ or type(wanted["batch"]) is not int:
        what = "; ".join(f"{n}: {_short(found.get(n))}, yours {_short(wanted.get(n))}" for n in differ[:4])
        raise InvalidInput(
            f"{folder} belongs to another batch ({what or 'its batch is missing'}): give another folder, or the "
            f"options that it was begun with{batch.model.identity.hint}"
        )
    return wanted["batch"]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 24 else f"{text[:21]}.."


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder against another process; the system lets go when this one ends, however it does."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            _lock(handle)
        except OSError as error:
            raise InvalidInput(f"another process is drawing into {folder}: wait, or give another folder") from error
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
