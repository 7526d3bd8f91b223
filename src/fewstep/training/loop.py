"""The one loop that trains: seeded, logged, and resumable to the same bits."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from fewstep.files import read_bounded, write_whole
from fewstep.training import state as states
from fewstep.training.average import Averages
from fewstep.training.draws import Draws, key_of
from fewstep.training.look import Look, averaged, put_average
from fewstep.training.method import STUDENT, TEACHER, Batch, Method, Phase, Role, Roles
from fewstep.training.order import members
from fewstep.training.settings import Settings
from fewstep.training.state import Learner, Saved

STATES, LOG = "states", "log.jsonl"
MOST_LOG = 1 << 30
HOW_OFTEN = ("state_every", "log_every")
"""Settings that do not decide the result."""


class Diverged(ArithmeticError):
    """A loss or its gradient is not finite."""


class Data(Protocol):
    """Samples by their numbers 0 .. count - 1; without a count there is no end of them.

    Properties:
        identity: plain JSON values that name the data, so that a run goes on with the same.
    """

    @property
    def count(self) -> int | None: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some samples, on the device of the networks."""
        ...


@dataclass(frozen=True)
class Progress:
    """What a watcher is told at each line of the log, and where a run goes on from a state.

    Attributes:
        step: done, of `steps`; `losses`: the mean of each since the last line, by role; none where a run
            goes on.
        seconds: of the steps so far, in all sittings; `left`: what the rest will take.
    """

    step: int
    steps: int
    phase: Phase
    losses: Mapping[str, float]
    seconds: float
    left: float


class Run(NamedTuple):
    """What is trained: a method, its networks, the data, the settings and the folder of states and log.

    Attributes:
        identity: more that decides the result, as plain JSON values.
        looks: at the averaged weights, every so often.
    """

    method: Method
    roles: Roles
    data: Data
    settings: Settings
    folder: Path
    identity: Mapping[str, Any] = {}
    looks: Sequence[Look] = ()

    @property
    def known_as(self) -> dict[str, Any]:
        """All that decides the result, as plain JSON values."""
        method: Any = self.method
        settings = {name: value for name, value in asdict(self.settings).items() if name not in HOW_OFTEN}
        own = {"method": {"name": self.method.name, **asdict(method)}, "settings": settings}
        return json.loads(json.dumps({**self.identity, **own, "data": dict(self.data.identity)}, default=str))


def train(run: Run, watch: Callable[[Progress], None] = lambda now: None) -> nn.Module:
    """Train the student of a run, from the state saved last, and return its module with the averaged weights.

    An exception of `watch`, a kill or a crash loses the steps since the last state; the same call goes on.

    Raises:
        InvalidInput: the folder holds states of a run with other settings, or a damaged one.
        Diverged: a loss or its gradient is not finite; the message names step and samples.
        OSError: a state cannot be written; the earlier ones stay.
    """
    learners = {name: learner_of(role, run.settings) for name, role in run.roles.items() if role.trained}
    run.folder.mkdir(parents=True, exist_ok=True)
    saved = states.read(run.folder / STATES, run.known_as)
    step, seconds = 0, 0.0
    if saved is not None:
        states.restore(saved, run.roles, learners)
        step, seconds = saved.step, saved.seconds
    log = _Log(run.folder / LOG, step)
    settings = run.settings

    def tell(phase: Phase, losses: Mapping[str, float]) -> None:
        watch(Progress(step, settings.steps, phase, losses, seconds, seconds / step * (settings.steps - step)))

    if saved is not None:
        tell(run.method.phase(step - 1, settings.steps), {})
    while step < settings.steps:
        began = time.perf_counter()
        phase = run.method.phase(step, settings.steps)
        if phase.stage and phase.step == phase.begins:
            learners = succeed(run.roles, learners, settings)
        with keyed(settings.seed, step):
            losses = take_step(run, learners, phase)
        step, seconds = step + 1, seconds + time.perf_counter() - began
        log.add(losses)
        if step % settings.log_every == 0 or step == settings.steps:
            tell(phase, log.line(step, settings.learning_rate(phase), seconds))
        look_at(run, learners, step, log)
        if step % settings.state_every == 0 or step == settings.steps:
            tensors = states.tensors_of(run.roles, learners, phase.stage)
            states.write(run.folder / STATES, run.known_as, Saved(step, phase.stage, seconds, tensors))
    put_average(learners[STUDENT], settings)
    return run.roles[STUDENT].module


def look_at(run: Run, learners: Mapping[str, Learner], step: int, log: _Log) -> None:
    """Take the looks that are due after a step, by the averaged weights."""
    due = [look for look in run.looks if step % look.every == 0 or step == run.settings.steps]
    if not due:
        return
    with averaged(run.roles, learners, run.settings):
        for look in due:
            log.saw(step, look(step, run.roles).figures)


def learner_of(role: Role, settings: Settings) -> Learner:
    """What belongs to a role that is trained, at its beginning."""
    weights = role.weights
    return Learner(weights, Averages(weights, settings.widths), settings.optimiser_of(weights))


def succeed(roles: Roles, learners: Mapping[str, Learner], settings: Settings) -> dict[str, Learner]:
    """A new stage: the averaged student becomes the teacher and its own beginning, with a new optimiser and average."""
    student = roles[STUDENT].module
    put_average(learners[STUDENT], settings)
    with torch.no_grad():
        roles[TEACHER].module.load_state_dict(student.state_dict())  # with buffers
    return {**learners, STUDENT: learner_of(roles[STUDENT], settings)}


def take_step(run: Run, learners: Mapping[str, Learner], phase: Phase) -> dict[str, float]:
    """One step of the optimisers. Returns the losses by role."""
    settings = run.settings
    numbers = members(run.data.count, settings.batch, phase.step, settings.seed)
    size = settings.batch // settings.accumulate
    totals: dict[str, float] = {}
    for learner in learners.values():
        learner.optimiser.zero_grad(set_to_none=True)
    for first in range(0, settings.batch, size):
        part = numbers[first : first + size]
        batch = run.data.batch(part)
        draws = Draws(settings.seed, phase.step, part, range(first, first + size), settings.batch, batch.data.device)
        for loss in run.method.losses(run.roles, batch, phase, draws):
            value = float(loss.value.detach())
            if not math.isfinite(value):
                raise Diverged(
                    f"the loss of the {loss.role} is {value} at step {phase.step + 1}, of the samples {named(part)}: "
                    f"lower the rate ({settings.rate:g}), or look at these samples"
                )
            (loss.value / settings.accumulate).backward()
            totals[loss.role] = totals.get(loss.role, 0.0) + value / settings.accumulate
    for name, learner in learners.items():
        if name not in totals:
            continue
        norm = float(nn.utils.clip_grad_norm_(learner.weights.values(), settings.clip or math.inf))
        if not math.isfinite(norm):
            raise Diverged(
                f"the gradient of the {name} is {norm} at step {phase.step + 1}, of the samples {named(numbers)}: "
                f"lower the rate ({settings.rate:g}), or look at these samples"
            )
        for group in learner.optimiser.param_groups:
            group["lr"] = settings.learning_rate(phase)
        learner.optimiser.step()
        learner.averages.update(learner.weights, phase.step - phase.begins + 1)
    return totals


def named(samples: Sequence[int]) -> str:
    """The numbers of the first 16 samples."""
    return f"{', '.join(map(str, samples[:16]))}{' ..' if len(samples) > 16 else ''}"


@contextmanager
def keyed(seed: int, step: int) -> Any:
    """Within it, torch's global generator, which dropout draws from, depends on the seed and the step alone."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(key_of(seed, "network", step))
        yield


class _Log:
    """A line of JSON every so many steps; lines after the step to go on from are dropped."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.recent = path, []
        lines = read_bounded(path, MOST_LOG).splitlines(keepends=True) if path.exists() else []
        write_whole(path, b"".join(line for line in lines if _is_before(line, step)))

    def add(self, losses: Mapping[str, float]) -> None:
        self.recent.append(losses)

    def line(self, step: int, rate: float, seconds: float) -> dict[str, float]:
        """Write the means since the last line, and return them."""
        names = sorted({name for losses in self.recent for name in losses})
        means = {name: _mean([losses[name] for losses in self.recent if name in losses]) for name in names}
        self.recent = []
        self.write({"step": step, "loss": means, "rate": rate, "seconds": round(seconds, 2)})
        return means

    def saw(self, step: int, figures: Mapping[str, float]) -> None:
        """What a look found."""
        if figures:
            self.write({"step": step, "seen": dict(figures)})

    def write(self, facts: Mapping[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _is_before(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
