"""What a run needs before it begins: data, memory on each device, and time; found by steps that change nothing.

The memory of a step is measured for two small numbers of samples, and grows in a straight line from there: what a
network keeps of each sample for its gradient is of one size. Gradients, averages and moments are counted. Then a few
whole steps are timed, where they fit. What the host's process holds meanwhile counts where it is more, as an allocator
keeps more than what lives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.run.memory import free_bytes, held_bytes, most_held_during, readable
from fewstep.training.allocation import Allocated
from fewstep.training.batch import Batch
from fewstep.training.draws import Draws
from fewstep.training.look import unchanged
from fewstep.training.loop import STATES, learner_of
from fewstep.training.method import Loss, Method, Phase, cycle_of, hardest_of, memory_of
from fewstep.training.order import members
from fewstep.training.place import prepared
from fewstep.training.processes import Processes
from fewstep.training.roles import STUDENT, Roles
from fewstep.training.run import Run
from fewstep.training.state import LATEST, Learner
from fewstep.training.step import Diverged, back_propagate, keyed, take_step

SMALL = (2, 4)
"""Samples of the steps whose memory is measured."""
TIMED = 3
"""Whole steps that are timed, or cycles of them; the first is left out."""
UNSURE = 1.25
"""By how much a need may be less than it is forecast."""
ALONE = Processes()


@dataclass(frozen=True)
class Memory:
    """Bytes on each device.

    Attributes:
        before: what the process holds there before it trains: libraries, and the networks of all roles.
        gradients, moments, averages, copies: of what is trained.
        activations: what a step keeps for its gradients, and works in.
        free: what the device has left beside `before`.
    """

    before: int
    gradients: int
    moments: int
    averages: int
    copies: int
    activations: int
    free: int

    def having_held(self, most: int) -> Memory:
        """The same, where the process held so many bytes in whole steps, which make no copies."""
        working = most - self.before - self.gradients - self.moments - self.averages
        return replace(self, activations=max(self.activations, working))

    @property
    def more(self) -> int:
        """What training takes beside what is held before."""
        return self.gradients + self.moments + self.averages + self.copies + self.activations

    @property
    def peak(self) -> int:
        """The most that the process holds."""
        return self.before + self.more

    @property
    def fits(self) -> bool:
        """False where it surely does not."""
        return self.more <= UNSURE * self.free


@dataclass(frozen=True)
class Forecast:
    """What a run needs.

    Attributes:
        samples: of the data, None without end; `data_bytes`: what is drawn or encoded for them, on the disk.
        memory: on each device; `processes`: of the run.
        batch: samples of a step, of all processes.
        step_seconds: of a step, without what processes wait for each other; None where steps do not fit.
        steps: in all; `data_seconds`: until the data are drawn or encoded.
    """

    samples: int | None
    data_bytes: int
    memory: Memory
    processes: int
    batch: int
    step_seconds: float | None
    steps: int
    data_seconds: float

    @property
    def seconds(self) -> float | None:
        """Of all steps and of making the data; what is measured at the end comes on top."""
        return None if self.step_seconds is None else self.data_seconds + self.steps * self.step_seconds

    def check(self) -> None:
        """Raise `InvalidInput` where it surely does not fit."""
        if not self.memory.fits:
            raise InvalidInput(
                f"a step needs {readable(self.memory.more)} of memory on each device, and "
                f"{readable(self.memory.free)} are free: lower batch, raise accumulate, or use checkpointing"
            )


def announce(
    folder: Path, processes: Processes, make: Callable[[], Forecast], tell: Callable[[Forecast], None]
) -> None:
    """Say what a run needs before it begins, by the main process; nothing where it goes on from a state in `folder`.

    Nothing is said either where a trial step is not finite, as then what training says of it says more.

    Raises `InvalidInput` where the run surely does not fit into memory.
    """

    def possible() -> Forecast | None:
        try:
            return make()
        except Diverged:
            return None

    if (folder / STATES / LATEST).is_file():
        return
    found = processes.on_main(possible)
    if found is not None:
        if processes.main:
            tell(found)
        found.check()


def forecast_of(run: Run, processes: Processes = ALONE, data_bytes: int = 0, data_seconds: float = 0.0) -> Forecast:
    """What a run needs, and each of its processes on its device. Leaves all as it was."""
    device, free = run.place.here, free_bytes(run.place.here)
    # The optimisers are the run's own, and steps at the rate 0 leave the weights as they are.
    share = replace(run.settings, batch=run.settings.batch // processes.count, rate=0.0, muon=0.0)
    learners = {name: learner_of(role, run.settings) for name, role in run.roles.items() if role.trained}
    before = held_bytes(device)  # now, as making an optimiser loads much of torch
    with prepared(run.roles, run.place) as called, unchanged(run.roles):
        trial = run._replace(settings=share, roles=called, looks=(), loggers=())
        memory = memory_needed(trial, learners, before, free)
        seconds = None
        if memory.fits:
            seconds, held = most_held_during(lambda: timed(trial, learners))
            memory = memory if device.type == "cuda" else memory.having_held(held)
        for learner in learners.values():
            learner.optimiser.zero_grad(set_to_none=True)
    settings = run.settings
    return Forecast(
        run.data.count, data_bytes, memory, processes.count, settings.batch, seconds, settings.steps, data_seconds
    )


def memory_needed(trial: Run, learners: Mapping[str, Learner], before: int, free: int) -> Memory:
    """The memory of a run whose device holds `before`, the averages among it, and has `free`."""
    weights = sum(map(size_of, (weight for learner in learners.values() for weight in learner.weights.values())))
    averages = sum(
        size_of(tensor)
        for learner in learners.values()
        for average in learner.averages.by_width.values()
        for tensor in average.values()
    )
    said = memory_of(trial.method)
    first, second = (measured(trial, learners, samples) for samples in SMALL)
    held = max(1, first.graphs)
    slope = max(0.0, (second.peak - first.peak) / (SMALL[1] - SMALL[0])) * max(1.0, said.graphs / held)
    fixed = max(0.0, first.peak - slope * SMALL[0] - weights)
    part = trial.settings.batch // trial.settings.accumulate
    copies = said.copies * sum(map(size_of, trial.roles[STUDENT].module.parameters()))
    return Memory(before - averages, weights, 2 * weights, averages, copies, round(fixed + slope * part), free)


class Trial(NamedTuple):
    """The most bytes of a step beside what was there, and the calls of the student whose activations it held."""

    peak: int
    graphs: int


def measured(trial: Run, learners: Mapping[str, Learner], samples: int) -> Trial:
    """A step of a few samples."""
    counted = Counted(trial.method, trial.roles[STUDENT].module)
    small = replace(trial.settings, batch=samples, accumulate=1)
    phase = trial.method.phase(hardest_of(trial.method, small.steps), small.steps)
    numbers = members(trial.data.count, samples, 0, small.seed)
    with keyed(small.seed, 0), Allocated(trial.place.here) as allocated:
        back_propagate(trial._replace(method=counted, settings=small), learners, phase, numbers, ALONE)
    for learner in learners.values():
        learner.optimiser.zero_grad(set_to_none=True)
    return Trial(allocated.peak, counted.most)


class Counted:
    """A method that counts the calls of a student whose activations are held at once."""

    def __init__(self, method: Method, student: nn.Module) -> None:
        self.method, self.name, self.needs, self.phase, self.plan = (
            method, method.name, method.needs, method.phase, method.plan,
        )  # fmt: skip
        self.student, self.calls, self.most = student, 0, 0

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        hook = self.student.register_forward_pre_hook(self.called)
        try:
            for loss in self.method.losses(roles, batch, phase, draws):
                self.most, self.calls = max(self.most, self.calls), 0
                yield loss
                self.calls = 0  # without those of computing activations again
        finally:
            hook.remove()

    def called(self, *_: Any) -> None:
        """The student is asked."""
        self.calls += torch.is_grad_enabled()


def timed(trial: Run, learners: Mapping[str, Learner]) -> float:
    """Seconds of a whole step, or of the mean one of a cycle."""
    seconds: list[float] = []
    steps, cycle = trial.settings.steps, cycle_of(trial.method)
    first = hardest_of(trial.method, steps) // cycle * cycle
    for turn in range(TIMED * cycle):
        phase = trial.method.phase(min(first + turn % cycle, steps - 1), steps)
        began = time.perf_counter()
        with keyed(trial.settings.seed, 0):
            take_step(trial, learners, phase, ALONE)
        seconds.append(time.perf_counter() - began)
    return sum(median(seconds[turn::cycle][1:]) for turn in range(cycle)) / cycle


def size_of(tensor: Tensor) -> int:
    """Bytes."""
    return tensor.numel() * tensor.element_size()
