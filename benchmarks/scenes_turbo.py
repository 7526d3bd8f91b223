"""The student of the scenes: train it, make it small, and measure it beside its teacher.

    python benchmarks/scenes_turbo.py train runs/turbo
    python benchmarks/scenes_turbo.py match runs/turbo-matched [--begin runs/turbo/student]
    python benchmarks/scenes_turbo.py make runs/turbo-matched/stage-5/student src/fewstep/zoo/weights/scenes-turbo
    python benchmarks/scenes_turbo.py measure [--model scenes-turbo] [--prompts 4000] [--json]
    python benchmarks/scenes_turbo.py picture docs/images/scenes-turbo.png

Adherence is the share of pictures that are right in every attribute that their prompt names, on prompts that no
training saw. Student and teacher draw the same prompts from the same noise, so their difference is one of pairs. Its
interval has 95%, of a normal distribution. With `--seed` other than 0 the prompts are others, to choose between
students by.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

import fewstep as fs
from fewstep import zoo
from fewstep.data import Scenes
from fewstep.distillation import (
    Checks,
    DistributionMatching,
    Measuring,
    Phased,
    Settings,
    Source,
    Watch,
    distill,
    rounded_of,
    write_adapted,
)
from fewstep.models import learned_plans
from fewstep.zoo.scenes.check import adheres, read_picture
from fewstep.zoo.scenes.prompts import Prompt, held_out_prompts, training_prompts

BATCH = 128
METHOD = Phased(plans=(4, 2, 1))
SETTINGS = Settings(steps=7000, batch=64, rate=5e-4, optimiser="adamw", muon=1.5e-3, state_every=250)
PROMPTS, PAIRS, GUIDANCE, STEPS = 8192, 32768, 2.0, 10
"""What the teacher draws for it."""
FEW, RATIO = 512, 3
"""Pairs of the matching, which takes their prompts alone, and steps of the fake score to one of the student."""


REAL, WEIGHT = Scenes(16384, seed=5), 0.03
"""Painted scenes with captions for a discriminator, and its weight in the losses of student and fake score."""


class Stage(NamedTuple):
    """A part of the matching: of one row alone or of all plans, with rates of the student and of the fake score, and
    with a discriminator on real pictures or without.
    """

    alone: bool
    steps: int
    batch: int
    rate: float
    fake_rate: float
    decay: str = "constant"
    real: bool = False

    @property
    def settings(self) -> Settings:
        """Of the loop."""
        return Settings(
            steps=self.steps,
            batch=self.batch,
            rate=self.rate,
            optimiser="adamw",
            decay=self.decay,
            warmup=50,
            state_every=50,
            log_every=20,
        )


STAGES = (
    Stage(alone=True, steps=2900, batch=32, rate=5e-5, fake_rate=2e-4),
    Stage(alone=False, steps=3450, batch=36, rate=1e-4, fake_rate=3e-4),
    Stage(alone=True, steps=1000, batch=36, rate=2e-4, fake_rate=4e-4),
    Stage(alone=False, steps=1500, batch=36, rate=1e-4, fake_rate=3e-4, decay="cosine"),
    Stage(alone=False, steps=4500, batch=36, rate=1e-4, fake_rate=3e-4, decay="cosine", real=True),
)
TEACHER: dict[str, Any] = {"sampler": "unipc-2", "steps": 8, "guidance": 2.0}

SHOWN = [prompt.text for prompt in held_out_prompts(10, seed=2)]
SEED = 0
"""Of the picture."""


class Line(NamedTuple):
    """What a model does: the share of right pictures, its difference to the teacher's with an interval, and seconds a
    picture.
    """

    who: str
    nfe: float
    right: float
    difference: float
    low: float
    high: float
    seconds: float


def right(pipe: fs.Pipeline, prompts: list[Prompt], **how: Any) -> tuple[np.ndarray, float, float]:
    """(prompts,) whether each picture is right, the evaluations of one, and seconds of one."""
    began = time.perf_counter()
    images = pipe([prompt.text for prompt in prompts], batch=BATCH, **how)
    seconds = (time.perf_counter() - began) / len(prompts)
    found = [adheres(read_picture(p), q.description) for p, q in zip(images.pixels, prompts, strict=True)]
    return np.array(found), images.nfe, seconds


def measured(model: str, count: int, seed: int) -> list[Line]:
    """The teacher, and the student in each number of rows that it knows."""
    prompts = held_out_prompts(count, seed)
    teacher, nfe, seconds = right(fs.load("scenes"), prompts, **TEACHER)
    lines = [Line("scenes, unipc-2", nfe, float(teacher.mean()), 0.0, 0.0, 0.0, seconds)]
    pipe = fs.load(model)
    for rows in sorted(learned_plans(pipe.model), reverse=True):
        student, nfe, seconds = right(pipe, prompts, steps=rows)
        pairs = student.astype(float) - teacher
        half = 1.96 * pairs.std(ddof=1) / count**0.5
        mean = float(pairs.mean())
        lines.append(Line(model, nfe, float(student.mean()), mean, mean - half, mean + half, seconds))
    return lines


def train(folder: Path) -> None:
    """Train the student, or go on from where it stopped. Its last state is kept: see docs/scenes.md."""
    prompts = [prompt.text for prompt in training_prompts(PROMPTS, seed=1)]
    source = Source(prompts, GUIDANCE, STEPS, PAIRS, held_out=128)
    measuring = Measuring(Checks(every=0))
    watch = Watch(partial(print, "drawn", flush=True), partial(print, flush=True))
    found = distill("scenes", METHOD, folder, settings=SETTINGS, source=source, measuring=measuring, watch=watch)
    print(found.report.verdict, found.path, sep="\n")


def match(folder: Path, begin: str) -> None:
    """Go on by distribution matching from a student, stage by stage, or from where it stopped."""
    plans = learned_plans(fs.load(begin).model)
    rows = [plan.rows for _, plan in sorted(plans.items(), reverse=True)]
    prompts = [prompt.text for prompt in training_prompts(PROMPTS, seed=1)]
    watch = Watch(partial(print, "drawn", flush=True), partial(print, flush=True))
    for number, stage in enumerate(STAGES, 1):
        some = rows[-1:] if stage.alone else rows
        times = tuple(row.t for each in some for row in each)
        method = DistributionMatching(
            rows=len(some[0]), times=times, sampler="ddim", ratio=RATIO, fake_rate=stage.fake_rate
        )
        source = Source(prompts, GUIDANCE, STEPS, FEW, held_out=128, begin=begin)
        if stage.real:
            method = replace(method, adversary=WEIGHT, critic=WEIGHT, adversary_from=0.1)
            source = replace(source, subjects=None, count=None, data=REAL)
        measuring = Measuring(Checks(every=0))
        place = folder / f"stage-{number}"
        found = distill(
            "scenes", method, place, settings=stage.settings, source=source, measuring=measuring, watch=watch
        )
        print(found.report.verdict, found.path, sep="\n")
        begin = str(found.path)


def make(student: Path, plans_of: str, target: Path) -> None:
    """Write what differs from the scenes, as a model of its own, with the plans of the student that it began as."""
    base, tuned = fs.load("scenes"), fs.load(student)
    first, *others = (plan for _, plan in sorted(learned_plans(fs.load(plans_of).model).items(), reverse=True))
    facts = json.loads((student / "distillation.json").read_text())
    facts["student"]["teacher"] = "scenes"
    ours, theirs = base.model.module, tuned.model.module
    assert ours is not None
    assert theirs is not None
    changes = rounded_of(ours, theirs)
    write_adapted(target, "scenes", changes, [first, *others], facts)


def picture(path: Path) -> None:
    """Draw some prompts by the teacher and by its student: a line for each, from the same noise."""
    pipes = fs.load("scenes"), fs.load("scenes-turbo")
    asked = [(pipes[0], TEACHER), *((pipes[1], {"steps": rows}) for rows in (4, 2, 1))]
    lines = [np.concatenate(list(pipe(SHOWN, seed=SEED, **how).pixels), axis=1) for pipe, how in asked]
    whole = Image.fromarray(np.concatenate(lines, axis=0))
    path.parent.mkdir(parents=True, exist_ok=True)
    whole.resize((2 * whole.width, 2 * whole.height), Image.Resampling.NEAREST).save(path, optimize=True)


def show(lines: list[Line]) -> None:
    """Print the lines for people."""
    table = Table("what draws", "NFE", "adherence", "less the teacher's", "95% interval", "a picture")
    for line in lines:
        ends = f"{line.low:+.1%} to {line.high:+.1%}"
        table.add_row(
            line.who, f"{line.nfe:g}", f"{line.right:.1%}", f"{line.difference:+.1%}", ends, f"{line.seconds:.3g} s"
        )
    Console().print(table)


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train").add_argument("folder", type=Path)
    matching = commands.add_parser("match")
    matching.add_argument("folder", type=Path)
    matching.add_argument("--begin", default="runs/turbo/student")
    making = commands.add_parser("make")
    making.add_argument("student", type=Path)
    making.add_argument("--plans", default="runs/turbo/student")
    making.add_argument("target", type=Path)
    commands.add_parser("picture").add_argument("path", type=Path)
    measuring = commands.add_parser("measure")
    measuring.add_argument("--model", default="scenes-turbo")
    measuring.add_argument("--prompts", type=int, default=4000)
    measuring.add_argument("--seed", type=int, default=0)
    measuring.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.command == "train":
        train(given.folder)
    elif given.command == "match":
        match(given.folder, given.begin)
    elif given.command == "make":
        make(given.student, given.plans, given.target)
        size = sum(file.stat().st_size for file in given.target.rglob("*.safetensors"))
        print(f"{given.target}: {size:,} bytes beside {zoo.shipped_path('scenes').name}")
    elif given.command == "picture":
        picture(given.path)
    else:
        lines = measured(given.model, given.prompts, given.seed)
        if given.json:
            print(json.dumps([line._asdict() for line in lines], indent=2))
        else:
            show(lines)


if __name__ == "__main__":
    main()
