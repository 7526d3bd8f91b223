"""Kills a training again and again, and compares what comes of it with a run that nobody disturbed, bit by bit.

    python benchmarks/kills.py [--kills 20] [--folder runs/kills]

The run distils a small network progressively in three rounds. Each life of it is a process, which kills itself by
SIGKILL: before the first step of each round, once, or at a moment that is drawn by a key, before one of its steps or of
its changes to the disk, so also while a state is saved, and before it is named as the latest. Weights, averages,
moments and the samples of every step have to be those of the undisturbed run.
"""

from __future__ import annotations

import argparse
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
from fewstep.distillation import Progressive
from fewstep.training import Batch, Draws, Loss, Phase, Roles, Run, Settings, student_of, train
from fewstep.zoo import UNetConfig, build

SETTINGS = Settings(steps=100, batch=8, state_every=4, log_every=10)
SHAPE = (1, 4, 4)
LONGEST = 45
"""Moments of the longest life: a state takes some ten, a step one."""
EDGE = "a round's first step"
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
    """Counts what a life does, and ends it at the `last` of these, or at a round's first step that no life ended at."""

    def __init__(self, folder: Path, last: int | None) -> None:
        self.folder, self.last, self.count = str(folder), last, 0
        self.passed_edges = {note["step"] for note in notes_of(folder) if note.get("killed") == EDGE}
        self.notes = os.open(folder / "notes.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        sys.addaudithook(self.heard)

    def heard(self, event: str, given: tuple[Any, ...]) -> None:
        writes = event != "open" or (isinstance(given[1], str) and any(letter in given[1] for letter in "wxa+"))
        if event in CHANGES and writes and str(given[0]).startswith(self.folder):
            self.passed(CHANGES[event])

    def passed(self, what: str) -> None:
        """One more; the life ends before it happens."""
        self.count += 1
        if self.count == self.last:
            self.end({"killed": what})

    def edge(self, step: int) -> None:
        """A round begins."""
        if self.last is not None and step not in self.passed_edges:
            self.end({"killed": EDGE, "step": step})

    def end(self, facts: dict[str, Any]) -> None:
        self.note(facts)
        os.kill(os.getpid(), signal.SIGKILL)

    def note(self, facts: dict[str, Any]) -> None:
        os.write(self.notes, (json.dumps(facts) + "\n").encode())


@dataclass(frozen=True)
class Noted(Progressive):
    """Which says what samples a step has, and passes a moment there."""

    moments: ClassVar[Moments]

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        if phase.stage and phase.step == phase.begins:
            self.moments.edge(phase.step)
        self.moments.passed("a step")
        self.moments.note({"step": draws.step, "samples": list(draws.samples)})
        yield from super().losses(roles, batch, phase, draws)


def live(folder: Path, last: int | None) -> bool:
    """Let the run live in a process of its own, at most to the moment `last`. Returns whether it came to its end."""
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if not child:
        code = 1
        try:
            Noted.moments = Moments(folder, last)
            train(run_of(folder / "run"))
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if status and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL):
        raise SystemExit(f"a life failed by itself, with the status {status}")
    return status == 0


def run_of(folder: Path) -> Run:
    """The run, from its beginning."""
    network = build(UNetConfig(channels=1, size=4, classes=3, widths=(8,), embedding=8, heads=1), 0)
    roles = student_of(fs.Network(network, fs.schedules.linear(), "v_prediction"), succeeds=True)
    return Run(Noted(begin=8, end=1), roles, Pictures(), SETTINGS, folder)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=Path("runs/kills"))
    given = parser.parse_args()
    folder = given.folder.absolute()
    torch.set_num_threads(1)
    shutil.rmtree(folder, ignore_errors=True)
    live(folder / "whole", None)
    draw = np.random.Generator(np.random.Philox(key=[0, given.kills]))
    kills = 0
    while not live(folder / "killed", int(draw.integers(2, LONGEST)) if kills < given.kills else None):
        kills += 1
    moments = Counter(note["killed"] for note in notes_of(folder / "killed") if "killed" in note)
    print(f"killed {kills} times, before " + ", ".join(f"{what} {n}" for what, n in sorted(moments.items())))
    if kills < given.kills:
        raise SystemExit(f"the run ended after {kills} kills: let it have more steps")
    if samples_of(folder / "whole") != samples_of(folder / "killed"):
        raise SystemExit("the samples of the steps differ")
    different = differing(folder)
    if different:
        raise SystemExit(f"{len(different)} tensors differ, such as {sorted(different)[0]}")
    print("weights, averages, moments and samples are those of the undisturbed run, to the bit")


if __name__ == "__main__":
    main()
