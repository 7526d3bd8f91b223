"""`bench`: measure a sweep of a model, as far as it is not measured yet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewstep.benchmark.commands import bench_command
from fewstep.benchmark.folder import home_of, opened
from fewstep.benchmark.judge import Judge
from fewstep.benchmark.measured import Measured, key_of
from fewstep.benchmark.page import write_page
from fewstep.benchmark.settings import PLAIN, SILENT, USUAL, Loading, Pictures, Reporter
from fewstep.benchmark.subject import Source, Subject
from fewstep.benchmark.sweep import Sweep, candidates_of
from fewstep.benchmark.work import PILOT, SHARE, Case, Work
from fewstep.core.errors import InvalidInput


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Attributes:
        results: the cases of the sweep that are measured, in its order.
        left: cases of the sweep that are not; `stopped` says why: "", "interrupted" or "out of time".
        skipped: what could not be compiled, by name, and why.
        missing: figures that could not be had, by name, and why.
    """

    folder: Path
    page: Path
    results: Sequence[Measured]
    left: int
    stopped: str
    skipped: Mapping[str, str]
    missing: Mapping[str, str]


def bench(
    pipe: Source,
    sweep: Sweep | None = None,
    *,
    pictures: Pictures = USUAL,
    loading: Loading = PLAIN,
    output: str | os.PathLike[str] | None = None,
    seconds: float | None = None,
    clip: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Bench:
    """Measure every plan of a sweep on the same noise, and write results and a page into a folder.

    What is in the folder is not measured again, so a bench that was stopped, or killed, is continued by the same call.
    Ctrl-C stops it and keeps what is done.

    Args:
        pipe: a pipeline in float32; or a name, path or id as `fewstep.load` takes them, which is loaded in every
            precision of the sweep.
        sweep: what to compare; None is a small one of usual samplers and grids.
        pictures: what every plan draws.
        loading: where a model that is not loaded yet runs, and how its files are read.
        output: the folder, "out/bench-MODEL" where none is given.
        seconds: about how long it may take.
        clip: a folder with the weights of CLIP, for its score.
        reporter: told what it will cost before it starts, and what goes on.

    Raises:
        InvalidInput: for values out of range, a plan or a folder of another model, guidance where there is nothing to
            guide, a precision that the device cannot do, and a folder that another process writes to.
    """
    subject = Subject(pipe, pictures, loading)
    place = home_of(subject.model.name) if output is None else Path(output)
    return measure(subject, sweep or Sweep(), place, seconds=seconds, clip=clip, reporter=reporter)


def measure(
    subject: Subject,
    sweep: Sweep,
    place: Path,
    *,
    seconds: float | None = None,
    clip: str | os.PathLike[str] | None = None,
    reporter: Reporter = SILENT,
) -> Bench:
    """`bench` of a subject into the folder `place`."""
    if seconds is not None and not seconds > 0:
        raise InvalidInput(f"seconds must be above 0, got {seconds!r}")
    scales = list(dict.fromkeys(subject.scale(scale) for scale in sweep.guidance))
    subject.problem(None)  # refuses a seed or a batch out of range
    judge = Judge(subject, clip)
    facts = {**subject.facts, "device": subject.here.device, "judged": [*judge.facts, PILOT, SHARE]}
    candidates = {scale: candidates_of(sweep, subject.target(scale)) for scale in scales}
    cases = [
        Case(
            candidate,
            scale,
            precision,
            key_of({**facts, "plan": candidate.plan.digest, "guidance": scale, "in": precision}),
        )
        for scale in scales
        for precision in dict.fromkeys(sweep.precisions)
        for candidate in candidates[scale].plans
    ]
    order = {case.key: i for i, case in enumerate(cases)}
    # Measured in the order of their keys, which is none, so that a slow hour of the machine favours no sampler.
    cases.sort(key=lambda case: (scales.index(case.guidance), case.key))
    for precision in sweep.precisions:
        subject.loaded(precision)
    with opened(place, subject.model, subject.hint) as folder:
        work = Work(subject, folder, judge, cases, reporter)
        reporter.announce(work.forecast())
        folder.note(bench_command(subject, sweep, clip))
        try:
            stopped = "" if work.run(seconds) else "out of time"
        except KeyboardInterrupt:
            stopped = "interrupted"
        write_page(folder, subject.words)
        done = [one for one in folder.results.results if one.key in order]
        return Bench(
            folder=folder.path,
            page=folder.page,
            results=sorted(done, key=lambda one: order[one.key]),
            left=len(work.left),
            stopped=stopped,
            skipped={name: why for found in candidates.values() for name, why in found.skipped.items()},
            missing={"distance": judge.no_distance} if judge.no_distance else {},
        )
