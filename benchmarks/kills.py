"""Kills a training again and again, and compares what comes of it with a run that nobody disturbed, bit by bit.

    python benchmarks/kills.py [--method progressive|dmd|lcm ..] [--kills 20] [--folder runs/kills]

The run distils a small network: progressively in three rounds, by distribution matching with a discriminator, two steps
of the fake score to one of the student, and states inside of these cycles too, or by latent consistency, with an
average that goes after the student. Each life of it is a process, which kills itself by SIGKILL: before the first step
of each round and between the two losses of some steps, once, or at a moment that is drawn by a key, before one of its
steps or losses, or of its changes to the disk, so also while a state is saved, and before it is named as the latest.
Weights of all that moves, averages, moments and the samples of every step have to be those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch._dynamo  # an optimiser imports it when it is first made, in each life anew

import fewstep as fs
from fewstep.distillation import DistributionMatching, LatentConsistency, Progressive
from fewstep.training import Batch, Draws, Loss, Phase, Roles, Run, Settings, further_roles, student_of, train
from fewstep.training.method import cycle_of
from fewstep.zoo import UNetConfig, build

SETTINGS = Settings(steps=100, batch=8, state_every=3, log_every=10)
SHAPE = (1, 4, 4)
LONGEST = 45
"""Moments of the longest life: a state takes some ten, a step one."""
EDGE = "a round's first step"
BETWEEN = "the second loss of a step"
HALVES = (20, 70)
"""Steps between whose losses a life ends, if they have two."""
CHANGES = {"open": "a file", "os.rename": "a rename", "os.mkdir": "a folder", "shutil.rmtree": "a removal"}
"""Events of Python's audit hooks that come before a change to the disk, and what they change."""


class Pictures:
    """Numbers from a generator, by their own number."""

    count = 50
    identity: ClassVar[dict[str, str]] = {"name": "pictures"}

    def batch(self, numbers: Sequence[int]) -> Batch:
        draws = Draws(9, 0, numbers, range(len(numbers)), len(numbers))
        label = torch.tensor([number % 3 for number in numbers])
        return Batch(draws.normal("data", SHAPE), condition={"label": label})


class Moments:
    """Counts what a life does, and ends it at the `last` of these, or at a rare one that no life ended at."""

    def __init__(self, folder: Path, last: int | None) -> None:
        self.folder, self.last, self.count, self.step = str(folder), last, 0, -1
        self.ended = {(note["killed"], note["step"]) for note in notes_of(folder) if "killed" in note}
        self.notes = os.open(folder / "notes.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        sys.addaudithook(self.heard)

    def heard(self, event: str, given: tuple[Any, ...]) -> None:
        writes = event != "open" or (isinstance(given[1], str) and any(letter in given[1] for letter in "wxa+"))
        if event in CHANGES and writes and str(given[0]).startswith(self.folder):
            self.passed(CHANGES[event])

    def passed(self, what: str, rare: bool = False) -> None:
        """One more; the life ends before it happens."""
        self.count += 1
        if self.count == self.last or (rare and self.last is not None and (what, self.step) not in self.ended):
            self.note({"killed": what, "step": self.step})
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, facts: dict[str, Any]) -> None:
        os.write(self.notes, (json.dumps(facts) + "\n").encode())


class Noted:
    """A method that says what samples a step has, and passes a moment there and before each further loss."""

    moments: ClassVar[Moments]

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        self.moments.step = phase.step
        what = kind_of(self, phase)
        self.moments.passed(what, rare=what == EDGE)
        self.moments.note({"step": draws.step, "samples": list(draws.samples)})
        for number, loss in enumerate(super().losses(roles, batch, phase, draws)):  # type: ignore[misc]
            if number:
                self.moments.passed(BETWEEN, rare=phase.step in HALVES)
            yield loss


def kind_of(method: Any, phase: Phase) -> str:
    """What step of a method this is, in words."""
    if cycle_of(method) > 1:
        return "a step inside a cycle" if phase.step % cycle_of(method) else "a step of both"
    return EDGE if phase.stage and phase.step == phase.begins else "a step"


@dataclass(frozen=True)
class NotedProgressive(Noted, Progressive):
    """In rounds."""


@dataclass(frozen=True)
class NotedMatching(Noted, DistributionMatching):
    """In cycles."""


@dataclass(frozen=True)
class NotedConsistency(Noted, LatentConsistency):
    """With an average that goes after the student."""


METHODS: dict[str, Any] = {
    "progressive": NotedProgressive(begin=8, end=1),
    "dmd": NotedMatching(ratio=2, adversary=0.1),
    "lcm": NotedConsistency(grid_steps=8),
}


def live(folder: Path, method: str, last: int | None) -> bool:
    """Let the run live in a process of its own, at most to the moment `last`. Returns whether it came to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if not child:
        code = 1
        try:
            Noted.moments = Moments(folder, last)
            train(run_of(folder / "run", METHODS[method]))
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if status and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        raise SystemExit(f"a life failed by itself, with the status {status}")
    return status == 0


def run_of(folder: Path, method: Any) -> Run:
    """The run, from its beginning."""
    network = build(UNetConfig(channels=1, size=4, classes=3, widths=(8,), embedding=8, heads=1), 0)
    teacher, stages = fs.Network(network, fs.schedules.linear(), "v_prediction"), method.phase(0, SETTINGS.steps).stages
    roles = student_of(teacher, succeeds=stages > 1)
    roles |= further_roles(method, roles, Pictures().batch(range(4)))
    return Run(method, roles, Pictures(), SETTINGS, folder)


def notes_of(folder: Path) -> list[dict[str, Any]]:
    """What the lives of a run noted."""
    path = folder / "notes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def samples_of(folder: Path) -> dict[int, list[int]]:
    """The samples of each step. Raises where a step that was done again had others."""
    found: dict[int, list[int]] = {}
    for note in notes_of(folder):
        if "samples" in note and found.setdefault(note["step"], note["samples"]) != note["samples"]:
            raise SystemExit(f"step {note['step']} had other samples when it was done again")
    return found


def differing(folder: Path) -> list[str]:
    """The tensors in which the last states of both runs differ."""
    from safetensors.torch import load_file

    name = f"run/states/step-{SETTINGS.steps:08d}/state.safetensors"
    whole, killed = (load_file(folder / run / name) for run in ("whole", "killed"))
    return [key for key in {*whole, *killed} if key not in whole or key not in killed
            or whole[key].dtype != killed[key].dtype or not torch.equal(whole[key], killed[key])]  # fmt: skip


def summary(notes: Sequence[dict[str, Any]], method: Any) -> str:
    """Before what lives ended, and how many of them while a state was saved."""
    ends = [note for note in notes if "killed" in note]
    saving = [note["step"] + 1 for note in ends if note["killed"] in CHANGES.values() and note["step"] >= 0]
    counts = ", ".join(f"{what} {n}" for what, n in sorted(Counter(note["killed"] for note in ends).items()))
    inside = sum(step % cycle_of(method) != 0 for step in saving)
    more = f", {inside} of these inside a cycle" if cycle_of(method) > 1 else ""
    return f"killed {len(ends)} times, before {counts}; {len(saving)} times while it saved{more}"


def compare(method: str, kills: int, folder: Path) -> None:
    """Two runs by a method. Raises where they differ."""
    shutil.rmtree(folder, ignore_errors=True)
    live(folder / "whole", method, None)
    draw = np.random.Generator(np.random.Philox(key=[0, kills]))
    done = 0
    while not live(folder / "killed", method, int(draw.integers(2, LONGEST)) if done < kills else None):
        done += 1
    print(f"{method}: {summary(notes_of(folder / 'killed'), METHODS[method])}")
    if done < kills:
        raise SystemExit(f"the run ended after {done} kills: let it have more steps")
    if samples_of(folder / "whole") != samples_of(folder / "killed"):
        raise SystemExit("the samples of the steps differ")
    different = differing(folder)
    if different:
        raise SystemExit(f"{len(different)} tensors differ, such as {sorted(different)[0]}")
    print("weights, averages, moments and samples are those of the undisturbed run, to the bit")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", choices=METHODS, action="append", help="one alone, or several times for some")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("runs/kills"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()  # no life goes through, and so copies, what was imported
    for method in given.method or METHODS:
        compare(method, given.kills, given.folder.absolute() / method)


if __name__ == "__main__":
    main()
