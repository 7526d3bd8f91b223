"""Whether a few-step model that learns something new keeps its few steps: by --keep-steps, and by plain fine-tuning.

    python benchmarks/keep_steps.py [--folder out/keep-steps] [--seed 0] [--images 1024] [--drawn 500]
                                    [--plain-steps 950]

What is new to the scenes is a shape: two crossed bars. It is painted like their own shapes, always large, as eight
times smaller latents lose a small one, and captions call it "+", a word that no training has told the text encoder.
`scenes-turbo`, a student of 4, 2 and 1 evaluations, learns it from pictures with captions

- by `fewstep.distillation.fine_tune`, which is `fewstep train model --keep-steps`: twin, trajectories, student;
- by plain training with the loss of `fewstep train model`, at the same batch and rate and for as many steps as twin and
  student have together. A student is refused there, so it is given as a model that does not say that it is one.

Measured is what each draws in 4 evaluations. Of old prompts, held out from every training: the Frechet distance of
mean colours of 8 x 8 fields to 10,000 painted scenes of the same prompts, whose floor is that of as many other painted
scenes, and adherence. Of new prompts, held out too: the share of pictures in which the reader finds a cross, and of
those that are right in all that the prompt names. The goals are a distance of at most 1.15 times that of before, and a
cross in 85%. Everything is kept in the folder, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

import fewstep as fs
from fewstep import zoo
from fewstep.data import Sample, Told
from fewstep.distillation import Keep, Watches, fine_tune
from fewstep.files import write_whole
from fewstep.measure import FunctionFeatures, Summary, frechet_distance
from fewstep.models import copies, learned_plans
from fewstep.training import Settings, Watching, train_on
from fewstep.zoo.scenes.caption import caption
from fewstep.zoo.scenes.check import adheres, read_picture
from fewstep.zoo.scenes.picture import Corners, picture
from fewstep.zoo.scenes.prompts import Prompt, held_out_prompts, training_prompts
from fewstep.zoo.scenes.scene import Description, draw_description, placed

MODEL, TEACHER, NEW = "scenes-turbo", "scenes", "+"
HALF = 0.28
"""Half the width of a bar, of a half length of 1."""
ROWS, BATCH, PAINTED = 4, 128, 10_000
SETTINGS = Settings(steps=500, batch=32, rate=5e-4, optimiser="adamw", muon=1.5e-3, state_every=50, log_every=50)
STUDENT = replace(SETTINGS, steps=1000, muon=1e-3)
PICTURES, KEPT, PAIRS = 768, 1024, 2048
"""New pictures to learn from, old prompts that are named as kept, and trajectories of new ones."""
WEIGHT = 1.5
"""Of what is kept."""
GOALS = 1.15, 0.85


def corners() -> Corners:
    """Of two crossed bars."""
    a = HALF
    plus = [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
    inside = float(1 / np.hypot(1, a))
    return tuple((inside * x, inside * y) for x, y in plus)


FURTHER = {NEW: corners()}


def new_prompts(count: int, seed: int, *, held_out: bool) -> list[Prompt]:
    """Prompts of scenes in which one thing, or two or three equal ones, is a cross."""
    rng, found = np.random.default_rng((seed, 31)), []
    for _ in range(count):
        one = draw_description(rng, held_out=held_out)
        groups, place = list(one.groups), int(rng.integers(len(one.groups)))
        groups[place] = replace(groups[place], shape=NEW, size=groups[place].size and "large")
        one = replace(one, groups=tuple(groups))
        found.append(Prompt(caption(one, rng), one))
    return found


def painted(description: Description, rng: np.random.Generator) -> np.ndarray:
    """A scene of a description, in which every cross is large."""
    groups = (replace(one, size="large") if one.shape == NEW else one for one in description.groups)
    return picture(placed(replace(description, groups=tuple(groups)), rng), FURTHER)


class News:
    """The new pictures with captions; a source of `fewstep.data`."""

    told: Told = "prompts"
    classes = 0

    def __init__(self, seed: int) -> None:
        self.count, rng = PICTURES, np.random.default_rng((seed, 32))
        self.prompts = new_prompts(PICTURES, seed, held_out=False)
        self.pictures = [Image.fromarray(painted(prompt.description, rng)) for prompt in self.prompts]
        self.identity = {"new": NEW, "count": PICTURES, "seed": seed}

    def read(self, number: int) -> Sample:
        return Sample(self.pictures[number], self.prompts[number].text)

    def name(self, number: int) -> str:
        return f"cross {number}"


def kept(folder: Path, settings: Settings, student: Settings, seed: int) -> Path:
    """The student that learned by --keep-steps."""
    keep = Keep([prompt.text for prompt in training_prompts(KEPT, seed + 31)], PAIRS, settings=student, weight=WEIGHT)
    say = partial(told, "keep-steps")
    watch = Watches(Watching(training=partial(told, "keep-steps, its teacher")), partial(print, "drawn"), say)
    found = fine_tune(News(seed), MODEL, folder / "kept", keep=keep, settings=settings, watch=watch)
    print(f"keep-steps: its error is {found.kept} times that of before in what it keeps, {found.new} in what is new")
    return found.path


def plain(folder: Path, settings: Settings, seed: int) -> Path:
    """The student that was trained as any other model."""
    start, pipe = folder / "start", fs.load(MODEL)
    if not start.exists():
        folder.mkdir(parents=True, exist_ok=True)
        recommended = {**pipe.model.recommended, "guidance": {"scale": 1.0}}
        plan = learned_plans(pipe.model)[ROWS]
        recommended["sampling"] = {"plan": json.loads(plan.to_json())}
        assert pipe.model.module is not None
        copies.write(start, zoo.shipped_path(TEACHER), pipe.model.module, recommended, {})
    watch = Watching(training=partial(told, "plain"))
    return train_on(News(seed), start, folder / "plain", settings=settings, watch=watch).path


def told(who: str, now: fs.training.Progress) -> None:
    """A line of a training."""
    losses = ", ".join(f"{value:.4f}" for value in now.losses.values())
    print(f"{who}: step {now.step} of {now.steps}, loss {losses}, {now.left:.0f} s left", flush=True)


def colours(pictures: Tensor) -> Tensor:
    """(B, 192) mean colours of 8 x 8 fields."""
    return avg_pool2d(pictures, 8).flatten(1)


def summary(pictures: np.ndarray) -> Summary:
    """Features of pictures (n, 64, 64, 3) of 8 bits."""
    found = Summary(FunctionFeatures(colours, "colours of 8 x 8 fields", 192, digest="1"))
    for part in np.array_split(pictures, max(1, len(pictures) // BATCH)):
        found.update(torch.from_numpy(part).permute(0, 3, 1, 2).float() / 127.5 - 1)
    return found


@dataclass(frozen=True)
class Line:
    """What a model draws in 4 evaluations.

    Attributes:
        distance: of old prompts, with the ends of its 95% interval; `adherence`: share of these that are right.
        found: the share of new prompts whose picture has a cross; `right`: of those that are right in everything.
    """

    who: str
    distance: float
    low: float
    high: float
    adherence: float
    found: float
    right: float


class Judge:
    """Old and new prompts, and painted scenes of the old ones."""

    def __init__(self, images: int, drawn: int, seed: int) -> None:
        self.seed = seed
        self.old, self.new = held_out_prompts(images, seed + 31), new_prompts(drawn, seed + 1, held_out=True)
        self.reference = summary(self.scenes(PAINTED, 33))

    def scenes(self, count: int, key: int) -> np.ndarray:
        """Painted scenes of the old prompts in turn."""
        rng = np.random.default_rng((self.seed, key))
        return np.stack([picture(placed(self.old[i % len(self.old)].description, rng)) for i in range(count)])

    def floor(self) -> float:
        """The distance of other painted scenes."""
        return frechet_distance(summary(self.scenes(len(self.old), 34)), self.reference).value

    def line(self, who: str, path: str | Path, folder: Path) -> Line:
        """What a model draws; kept in the folder."""
        file = folder / f"{who}.json"
        if not file.exists():
            pipe = fs.load(path)
            old, new = (self.draw(pipe, prompts, folder / f"{who}.png") for prompts in (self.old, self.new))
            distance = frechet_distance(summary(old), self.reference)
            readings = [read_picture(one, FURTHER) for one in new]
            found = [any(thing.shape == NEW for thing in reading.things) for reading in readings]
            right = [adheres(one, prompt.description) for one, prompt in zip(readings, self.new, strict=True)]
            line = Line(
                who, distance.value, distance.low, distance.high, share(old, self.old), float(np.mean(found)),
                float(np.mean(right)),
            )  # fmt: skip
            write_whole(file, json.dumps(vars(line)).encode())
        return Line(**json.loads(file.read_text()))

    def draw(self, pipe: fs.Pipeline, prompts: Sequence[Prompt], sheet: Path) -> np.ndarray:
        """Pictures of prompts; the first ten of the last call are a sheet."""
        seeds = [10**6 * (self.seed + 1) + i for i in range(len(prompts))]
        images = pipe([prompt.text for prompt in prompts], steps=ROWS, seed=seeds, batch=BATCH).pixels
        Image.fromarray(np.concatenate(list(images[:10]), axis=1)).save(sheet)
        return images


def share(pictures: np.ndarray, prompts: Sequence[Prompt]) -> float:
    """Of pictures that are right in all that their prompts name."""
    pairs = zip(pictures, prompts, strict=True)
    return float(np.mean([adheres(read_picture(one, FURTHER), prompt.description) for one, prompt in pairs]))


def show(lines: Mapping[str, Line], floor: float) -> None:
    """Print the table, and what became of the goals."""
    print(f"{'what draws':14} distance (95%)            adherence  cross  all right   (floor {floor:.3f})")
    for line in lines.values():
        ends = f"{line.distance:.3f} ({line.low:.3f} to {line.high:.3f})"
        print(f"{line.who:14} {ends:25} {line.adherence:9.1%} {line.found:6.1%} {line.right:8.1%}")
    before = lines["before"].distance
    for who in ("keep-steps", "plain"):
        ratio = lines[who].distance / before
        print(f"{who}: {ratio:.3f} times the distance of before (goal {GOALS[0]}), a cross in {lines[who].found:.1%}")


def main() -> None:
    """Train both, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/keep-steps"))
    total = SETTINGS.steps + STUDENT.steps
    for name, usual in (("seed", 0), ("images", 1024), ("drawn", 500), ("plain-steps", total)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    given = parser.parse_args()
    folder = given.folder / f"seed-{given.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    judge = Judge(given.images, given.drawn, given.seed)
    settings, student = replace(SETTINGS, seed=given.seed), replace(STUDENT, seed=given.seed)
    models: dict[str, Any] = {
        "before": lambda: MODEL,
        "keep-steps": lambda: kept(folder, settings, student, given.seed),
        "plain": lambda: plain(folder, replace(settings, steps=given.plain_steps), given.seed),
    }
    lines = {who: judge.line(who, make(), folder) for who, make in models.items()}
    floor = judge.floor()
    show(lines, floor)
    facts = {"floor": floor, "lines": [vars(line) for line in lines.values()], **vars(given)}
    write_whole(folder / "figures.json", json.dumps(facts, indent=1, default=str).encode())


if __name__ == "__main__":
    main()
