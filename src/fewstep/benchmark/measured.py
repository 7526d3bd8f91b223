"""`bench`: measure a sweep of a model, as far as it is not measured yet."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewstep.benchmark.commands import bench_command
from fewstep.benchmark.folder import opened
from fewstep.benchmark.judge import Judge
from fewstep.benchmark.loading import Loading
from fewstep.benchmark.machine import device_name
from fewstep.benchmark.page import write_page
from fewstep.benchmark.row import Run, key_of
from fewstep.benchmark.runner import PILOT, SHARE, Case, Estimate, Progress, Work
from fewstep.benchmark.subject import Subject
from fewstep.benchmark.sweep import Sweep, entries_of
from fewstep.core.errors import InvalidInput
from fewstep.pipeline.identity import hint

CLASS_IMAGES, PROMPT_IMAGES, MOST_IMAGES = 64, 16, 100_000
"""Images of a row unless the caller says otherwise."""


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Attributes:
        runs: the rows of the sweep that are measured, in its order.
        left: rows of the sweep that are not; `stopped` says why: "", "interrupted" or "out of time".
        skipped: what could not be compiled, by name, and why.
        missing: figures that could not be had, by name, and why.
    """

    folder: Path
    page: Path
    runs: Sequence[Run]
    left: int
    stopped: str
    skipped: Mapping[str, str]
    missing: Mapping[str, str]


def bench(
    model: Any,
    sweep: Sweep | None = None,
    *,
    output: str | os.PathLike[str] | None = None,
    prompts: str | os.PathLike[str] | None = None,
    images: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    seconds: float | None = None,
    clip: str | os.PathLike[str] | None = None,
    device: torch.device | str = "cpu",
    variant: str | None = None,
    config: str | os.PathLike[str] | None = None,
    allow_pickle: bool = False,
    announce: Callable[[Estimate], None] = lambda estimate: None,
    watch: Callable[[Progress], None] = lambda progress: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Bench:
    """Measure every plan of a sweep on the same noise, and write rows and a page into a folder.

    Rows that are in the folder are not measured again, so a bench that was stopped, or killed, is continued by the same
    call. Ctrl-C stops it and keeps what is done.

    Args:
        model: a name, path or id as `fewstep.load` takes them, or a pipeline that it made, in float32.
        sweep: what to compare; None is a small one of usual samplers and grids.
        output: the folder, "out/bench-MODEL" where none is given.
        prompts: a file with a prompt a line, for a model of words; the shipped scenes have their own.
        images: to draw for a row, 64, or 16 from words; `batch` of them at once.
        seed: names other noise, 0 to 2^20 - 1.
        seconds: about how long it may take.
        clip: a folder with the weights of CLIP, for its score.
        device: where the model runs; `variant`, `config` and `allow_pickle` are of `fewstep.load` too.
        announce: told what it will cost before it starts; what it raises ends it, and nothing is written.
        watch: told what goes on.

    Raises:
        InvalidInput: for values out of range, a plan or a folder of another model, guidance where there is nothing to
            guide, a precision that the device cannot do, and a folder that another process writes to.
    """
    sweep = sweep or Sweep()
    subject = Subject(model, prompts, seed, batch, device, Loading.of(variant, config, allow_pickle))
    images = (PROMPT_IMAGES if subject.words else CLASS_IMAGES) if images is None else images
    if type(images) is not int or not 2 <= images <= MOST_IMAGES:
        raise InvalidInput(f"images must be a whole number from 2 to {MOST_IMAGES}, got {images!r}")
    if seconds is not None and not seconds > 0:
        raise InvalidInput(f"seconds must be above 0, got {seconds!r}")
    scales = list(dict.fromkeys(subject.scale(scale) for scale in sweep.guidance))
    entries = entries_of(sweep, subject.problem(None).schedule, subject.pipe.name, subject.pipe.digest)
    judge = Judge(subject, images, clip)
    assert subject.batch is not None
    facts = {
        "model": subject.pipe.digest,
        "conditions": subject.conditions_digest,
        "seed": seed,
        "images": images,
        "batch": min(subject.batch, images),
        "device": device_name(subject.device),
        "judged": [*judge.facts, PILOT, SHARE],
    }
    cases = [
        Case(entry, scale, precision, key_of({**facts, "plan": entry.plan.digest, "guidance": scale, "in": precision}))
        for scale in scales
        for precision in dict.fromkeys(sweep.precisions)
        for entry in entries.plans
    ]
    order = {case.key: i for i, case in enumerate(cases)}
    # Measured in the order of their keys, which is none, so that a slow hour of the machine favours no sampler.
    cases.sort(key=lambda case: (scales.index(case.guidance), case.key))
    for precision in sweep.precisions:
        subject.loaded(precision)
    place = Path(output) if output is not None else Path("out") / f"bench-{subject.pipe.name}"
    with opened(place, subject.model, hint(subject.pipe)) as folder:
        work = Work(subject, folder, judge, images, cases, watch, clock)
        announce(work.estimate())
        folder.note(bench_command(subject, sweep, images, clip))
        try:
            stopped = "" if work.run(seconds) else "out of time"
        except KeyboardInterrupt:
            stopped = "interrupted"
        write_page(folder, subject.words)
        done = [run for run in folder.rows.runs if run.key in order]
        return Bench(
            folder=folder.path,
            page=folder.page,
            runs=sorted(done, key=lambda run: order[run.key]),
            left=len(work.left),
            stopped=stopped,
            skipped=entries.skipped,
            missing={"distance": judge.no_distance} if judge.no_distance else {},
        )
