"""Every method of distillation on the digits, at its own numbers of evaluations, beside samplers without training.

    python benchmarks/distill_table.py [--seeds 3] [--only regression,consistency] [--json FILE] [--page FILE]

Writes the table of docs/distill.md between its markers. What is drawn, trained and measured is kept under
`runs/distill-table`, so an interrupted run goes on. The figures alone are kept in the file of `--json` too, and those
that it has are not measured again. The project's table is

    python benchmarks/distill_table.py --json benchmarks/distill_table.json --page docs/distill.md

The teacher is the shipped model of the digits without guidance, so that a row is one evaluation for everybody. A
student draws 20,000 pictures, of noise that no training saw, and so does every sampler. The reference are 50,000
pictures of the teacher at its full steps, of other noise. The distance is FD-infinity on the features of the shipped
classifier, which no loss has seen; the floor is that of 20,000 pictures of the teacher itself, of the noise that all
draw.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from distill_figures import Kept
from distill_page import put, written
from torch import Tensor

import fewstep as fs
from fewstep.distillation import (
    Adversarial,
    Consistency,
    ContinuousConsistency,
    DistributionMatching,
    Endpoint,
    LatentConsistency,
    MeanFlow,
    Phased,
    Policy,
    Progressive,
    Regression,
    Settings,
)
from fewstep.distillation.pictures.pairs import Pairs, drawn
from fewstep.distillation.pictures.teacher import Teacher, noise_of, run, solved
from fewstep.measure import Features, Figure, Summary, frechet_infinity
from fewstep.measure.frechet import frechet_distance
from fewstep.training import STUDENT, Method, Run, further_roles, row_facts_of, student_of, train
from fewstep.tuning.rivals import contenders_of
from fewstep.zoo import classifier, digits

REFERENCE, JUDGED = 2 * 10**8, 3 * 10**8
"""The numbers of the teacher's pictures begin here: those that all are measured against, and those of the noise that
all draw.
"""
BATCH = 256
ROWS = (1, 2, 4, 8, 16)
"""Of samplers without training: those of students, and four times these."""


@dataclass(frozen=True)
class Entry:
    """A training of the table, and the numbers of rows that its student is drawn in. `kind` tells variants of a method
    apart, and `begins` is the training whose student this one begins as; None is the teacher.
    """

    method: Method
    settings: Settings
    rows: tuple[int, ...]
    kind: str = ""
    begins: Entry | None = None

    @property
    def name(self) -> str:
        """Of the line, and with the rows of its files."""
        return f"{self.method.name} {self.kind}".strip()

    @property
    def key(self) -> str:
        """Of its files: with other settings it is another student."""
        settings = {**asdict(self.settings), "seed": None}
        own = [asdict(self.method), settings, *([] if self.begins is None else [self.begins.key])]  # type: ignore[call-overload]
        digest = hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()[:6]
        return f"{self.name.replace(' ', '-')}-rows{self.rows[0]}-{digest}"


REGRESSION = Settings(batch=128, rate=1.5e-3)
PROGRESSIVE = Settings(batch=128, rate=1e-3)
CONSISTENCY = Settings(batch=128, rate=5e-4, optimiser="radam")
MATCHING = Settings(batch=128, rate=1e-4)
MATCHED = DistributionMatching(ratio=3, fake_rate=3e-4)
TIMES = (999.0, 224.15235457063716)
"""The first and the sixth level of the student by endpoint."""
ONE = Entry(Regression(rows=1), replace(REGRESSION, steps=12_000), (1,))
EVERY = Entry(Endpoint(), replace(REGRESSION, steps=6000), (1, 2, 4))
ENTRIES = (
    ONE,
    Entry(Regression(rows=2, sampler="ipndm-3", grid="ays"), replace(REGRESSION, steps=3000), (2,)),
    Entry(Regression(rows=4, sampler="ipndm-3", grid="ays"), replace(REGRESSION, steps=1500), (4,)),
    EVERY,
    Entry(Phased(), replace(REGRESSION, steps=6000), (1, 2, 4)),
    Entry(Progressive(begin=16, end=4), replace(PROGRESSIVE, steps=2000), (4,)),
    Entry(Progressive(begin=16, end=2), replace(PROGRESSIVE, steps=3000), (2,)),
    Entry(Progressive(begin=16, end=1), replace(PROGRESSIVE, steps=4000), (1,)),
    Entry(Consistency(step="heun"), replace(CONSISTENCY, steps=3000), (1, 2, 4, 8), "distillation"),
    Entry(Consistency(step=None), replace(CONSISTENCY, steps=4000), (1, 2, 4, 8), "training"),
    Entry(LatentConsistency(rows=4), replace(CONSISTENCY, steps=3000), (1, 2, 4)),
    Entry(Policy(rows=4), replace(REGRESSION, steps=2000), (4,)),
    Entry(ContinuousConsistency(), replace(CONSISTENCY, steps=3000), (1, 2, 4)),
    Entry(MeanFlow(), replace(CONSISTENCY, steps=4000), (1, 2, 4, 8)),
    Entry(MATCHED, replace(MATCHING, steps=2400), (1,), "", ONE),
    Entry(replace(MATCHED, rows=2, times=TIMES), replace(MATCHING, steps=2400), (2,), "", EVERY),
    Entry(Adversarial(ratio=3, critic_rate=1e-3, highest=0.6), Settings(1200, rate=2e-5), (1,), "", ONE),
)
"""A line of the table for each number of rows. Another method is a line more here; reflow is left out, as this teacher
is not a flow.
"""


@dataclass(frozen=True)
class Sizes:
    """How much is drawn, and which share of each training is done: all of it, but in tests."""

    pairs: int = 32_768
    drawn: int = 20_000
    reference: int = 50_000
    ranked: int = 1_000
    share: float = 1.0

    def scaled(self, share: float) -> Sizes:
        """A trial of a share of everything; of what is ranked or drawn at least what a distance needs."""
        counts = {name: round(getattr(self, name) * share) for name in ("pairs", "drawn", "reference", "ranked")}
        return Sizes(**{name: max(count, LEAST[name]) for name, count in counts.items()}, share=share)


LEAST = {"pairs": 16, "drawn": 3 * 33, "reference": 33, "ranked": 33}
"""More pictures than the features are wide, in each of the three parts that FD-infinity is extrapolated from."""


@dataclass(frozen=True, eq=False)
class Table:
    """What is measured, in a folder."""

    folder: Path
    sizes: Sizes = Sizes()
    record: Path | None = None

    @cached_property
    def kept(self) -> Kept:
        """What is measured, with this teacher and as many pictures."""
        return Kept(self.folder, {"model": self.teacher.pipe.model.identity.merged, **asdict(self.sizes)}, self.record)

    @cached_property
    def teacher(self) -> Teacher:
        return Teacher.of(fs.load("digits"), None, 1.0, None)

    @cached_property
    def features(self) -> Features:
        return classifier.load_shipped()

    def pairs(self, first: int, count: int, what: str) -> Pairs:
        """Pictures of the teacher, drawn where they are not kept."""
        return drawn(self.teacher, count, self.folder / "pairs", first, BATCH, lambda done, of: say(what, done, of))

    @cached_property
    def training(self) -> Pairs:
        return self.pairs(0, self.sizes.pairs, "pictures to learn from")

    @cached_property
    def trajectories(self) -> Pairs:
        """The same pictures, with the states on the way to them."""
        levels = Phased().suited(self.teacher.order.plan).times
        folder, count = self.folder / "trajectories", self.sizes.pairs
        return drawn(self.teacher.keeping(levels), count, folder, 0, BATCH, partial(say, "trajectories to learn from"))

    def learned(self, method: Method) -> tuple[Method, Pairs]:
        """A method as it suits the teacher, and what it learns from."""
        if isinstance(method, Endpoint | Phased):
            return method.suited(self.teacher.order.plan), self.trajectories
        return method, self.training

    @cached_property
    def judged(self) -> Pairs:
        return self.pairs(JUDGED, self.sizes.drawn, "pictures of the noise that all draw")

    @cached_property
    def reference(self) -> Summary:
        found = self.pairs(REFERENCE, self.sizes.reference, "pictures of the reference")
        return summed(self.features, (found.states(part) for part in parts(found.count)))

    @cached_property
    def real(self) -> Summary:
        return summed(self.features, digits.load().images.split(BATCH))

    def figures(self, draw: Callable[[Sequence[int]], Tensor], count: int) -> dict[str, Any]:
        """The distances of some pictures of the judged noise to the reference and to real digits."""
        own = summed(self.features, map(draw, parts(count)))
        measured = {"teacher": frechet_infinity(own, self.reference), "real": frechet_infinity(own, self.real)}
        return {name: plain(figure) for name, figure in measured.items()}

    def floor(self) -> dict[str, Any]:
        """The teacher against itself."""
        return self.kept.of("floor", lambda: self.figures(self.judged.states, self.judged.count))

    def rival(self, rows: int) -> dict[str, Any]:
        """The best sampler without training at some rows: that of the least distance of fewer pictures."""

        def measure() -> dict[str, Any]:
            plans = contenders_of(self.teacher.pipe.schedule_at(), rows)
            some = [self.ranked(plan) for plan in plans]
            best = plans[some.index(min(some))]
            facts = {"who": f"{best.recipe.sampler} on {best.recipe.grid}", "compared": len(plans), "rows": rows}
            return facts | self.figures(self.drawing(best), self.sizes.drawn)

        return self.kept.of(f"sampler-{rows}", measure)

    def drawing(self, plan: fs.Plan) -> Callable[[Sequence[int]], Tensor]:
        """Draws the judged noise by a plan of the teacher's network."""
        conditions = self.judged.conditions
        return lambda part: solved(self.teacher, conditions, [JUDGED + i for i in part], plan)

    def ranked(self, plan: fs.Plan) -> float:
        own = summed(self.features, map(self.drawing(plan), parts(self.sizes.ranked)))
        return frechet_distance(own, self.reference).value

    def student(self, entry: Entry, seed: int) -> list[dict[str, Any]]:
        """The figures of a student in each of its rows, trained where these are not kept."""
        return [
            self.kept.of(named(entry, seed, rows), lambda rows=rows: self.drawn_by(entry, seed, rows))
            for rows in entry.rows
        ]

    def drawn_by(self, entry: Entry, seed: int, rows: int) -> dict[str, Any]:
        """The figures of a student in some rows."""
        student, facts = self.trained(entry, seed)
        plan = self.learned(entry.method)[0].plan(student, rows)

        def draw(part: Sequence[int]) -> Tensor:
            numbers = [JUDGED + i for i in part]
            noise = noise_of(numbers, self.judged.shape, "cpu")
            return run(plan, student.given(self.judged.conditions.of(numbers).positive), noise, numbers)

        return facts | {"rows": rows} | self.figures(draw, self.sizes.drawn)

    def trained(self, entry: Entry, seed: int) -> tuple[fs.Network, dict[str, Any]]:
        """A student, and facts of its training; one that is trained already is read from its last state."""
        steps = max(8, round(entry.settings.steps * self.sizes.share))
        settings = replace(entry.settings, steps=steps, seed=seed, state_every=100, log_every=100)
        several = entry.method.phase(0, steps).stages > 1
        network, facts = fs.load("digits").model.denoiser(), row_facts_of(entry.method)
        roles = student_of(network, 1.0, several, rows=facts)
        if entry.begins is not None:
            begun, _ = self.trained(entry.begins, seed)
            roles[STUDENT].module.load_state_dict(begun.module.state_dict())  # type: ignore[union-attr]
        place, took = self.folder / f"{entry.key}-seed{seed}", 0.0

        def watch(now: fs.training.Progress) -> None:
            nonlocal took
            took = now.seconds
            say(f"{place.name}, {now.left:.0f} s left", now.step, now.steps)

        method, data = self.learned(entry.method)
        roles |= further_roles(method, roles, data.batch(range(4)))
        train(Run(method, roles, data, settings, place), watch).eval().requires_grad_(False)
        return roles[STUDENT].network, {"name": entry.name, "seed": seed, "steps": steps, "seconds": took}


def summed(features: Features, pictures: Any) -> Summary:
    """The features of some pictures, all of which are kept."""
    found = Summary(features, keep=1_000_000)
    for some in pictures:
        found.update(some)
    return found


def parts(count: int) -> list[range]:
    """The numbers 0 .. count - 1, some at a time."""
    return [range(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]


def plain(figure: Figure) -> dict[str, Any]:
    """What the table says of a figure."""
    return {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}


def say(what: str, done: int, of: int) -> None:
    """Progress, a line for each tenth."""
    if done == of or done * 10 // of != max(0, done - 512) * 10 // of:
        print(f"{what}: {done:,} of {of:,}", flush=True)


def known(table: Table, entries: Sequence[Entry], seeds: int) -> list[dict[str, Any]]:
    """The students of some trainings that are measured already, in the order of the table."""
    names = list(dict.fromkeys(entry.name for entry in entries))
    every = [named(entry, seed, rows) for entry in entries for rows in entry.rows for seed in range(seeds)]
    found = [one for one in map(table.kept.get, every) if one is not None]
    return sorted(found, key=lambda one: (names.index(one["name"]), one["rows"], one["steps"], one["seed"]))


def named(entry: Entry, seed: int, rows: int) -> str:
    """The figures of a student in some rows."""
    return f"{entry.key}-seed{seed}-in{rows}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/distill-table"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="methods, by name, separated by commas")
    parser.add_argument("--kept", action="store_true", help="train nothing: the table of what is measured already")
    parser.add_argument("--json", type=Path, help="keeps the figures; those that it has are not measured again")
    parser.add_argument("--page", type=Path, help="write the table into this page, between its markers")
    parser.add_argument("--share", type=float, default=1.0, help="of every number of pictures and steps, for a trial")
    given = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # of guidance between levels that few rows do not meet
    if given.share != 1 and (given.json or given.page):
        parser.error("--json and --page keep what is measured whole: leave them out, or --share")
    if given.only and given.page:
        parser.error("a page has every method: leave out --only, or --page")
    names = [name for name in given.only.split(",") if name]
    entries = [entry for entry in ENTRIES if not names or entry.method.name in names]
    if not entries:
        parser.error(f"--only {given.only} is none of {', '.join(sorted({one.method.name for one in ENTRIES}))}")
    folder = given.folder if given.share == 1 else given.folder.with_name(f"{given.folder.name}-{given.share:g}")
    folder.mkdir(parents=True, exist_ok=True)
    table = Table(folder, Sizes().scaled(given.share), given.json)
    floor = table.floor()
    if not given.kept:
        for rows in ROWS:
            table.rival(rows)
        for seed, entry in itertools.product(range(given.seeds), entries):  # every one with the first seed first
            table.student(entry, seed)
            table.kept.write()
    table.kept.write()
    samplers = {rows: found for rows in ROWS if (found := table.kept.get(f"sampler-{rows}")) is not None}
    text = written(floor, samplers, known(table, entries, given.seeds))
    print(text)
    if given.page:
        put(given.page, text)


if __name__ == "__main__":
    main()
