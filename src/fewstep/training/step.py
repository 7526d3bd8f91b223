"""One step of a training: its losses, the gradients, and what the optimisers make of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fewstep.training.draws import Draws, key_of, seed_generators
from fewstep.training.log import Taken, means
from fewstep.training.method import Phase
from fewstep.training.order import members
from fewstep.training.processes import Processes
from fewstep.training.roles import STUDENT, go_after
from fewstep.training.run import Run
from fewstep.training.state import Learner


class Diverged(ArithmeticError):
    """A loss or its gradient is not finite."""


def take_step(run: Run, learners: Mapping[str, Learner], phase: Phase, processes: Processes) -> Taken:
    """One step of the optimisers, the same in all processes. Returns the losses by role, and figures."""
    numbers = members(run.data.count, run.settings.batch, phase.step, run.settings.seed)
    buffers = Buffers(run)
    taken = processes.together(lambda: back_propagate(run, learners, phase, numbers, processes))
    processes.take_from_main(buffers.moved())
    for name, learner in learners.items():
        if name in taken.moved:
            processes.average_gradients(list(learner.weights.values()))
            move(run, learner, name, phase, numbers, processes)
    if STUDENT in taken.moved:
        for role in run.roles.values():
            if role.decay is not None:
                go_after(role, run.roles[STUDENT])
    return shared(taken, processes)


def back_propagate(
    run: Run, learners: Mapping[str, Learner], phase: Phase, numbers: Sequence[int], processes: Processes
) -> Taken:
    """Gradients of this process's share of a step, the mean over its samples. Raises `Diverged`."""
    settings = run.settings
    totals: dict[str, float] = {}
    moved: set[str] = set()
    figures: list[Mapping[str, float]] = []
    for learner in learners.values():
        learner.optimiser.zero_grad(set_to_none=True)
    for places in processes.share(settings.batch, settings.accumulate):
        part = numbers[places.start : places.stop]
        batch = run.data.batch(part)
        draws = Draws(settings.seed, phase.step, part, places, settings.batch, batch.data.device)
        for loss in run.method.losses(run.roles, batch, phase, draws):
            value = float(loss.value.detach())
            if not math.isfinite(value):
                raise Diverged(
                    f"the loss of the {loss.role} is {value} at step {phase.step + 1}, of the samples {named(part)}: "
                    f"lower the rate ({settings.rate:g}), or look at these samples"
                )
            (loss.value / settings.accumulate).backward()
            totals[loss.role] = totals.get(loss.role, 0.0) + value / settings.accumulate
            moved.update((loss.role, *loss.also))
            figures.append(loss.figures)
    return Taken(totals, means(figures), frozenset(moved))


def move(run: Run, learner: Learner, name: str, phase: Phase, numbers: Sequence[int], processes: Processes) -> None:
    """One step of the optimiser of a role, and of its averages. Raises `Diverged`."""
    settings = run.settings
    rate = settings.learning_rate(phase, run.roles[name].rate)
    norm = float(nn.utils.clip_grad_norm_(learner.weights.values(), settings.clip or math.inf))
    if not math.isfinite(norm):
        processes.agree(
            Diverged(
                f"the gradient of the {name} is {norm} at step {phase.step + 1}, of the samples {named(numbers)}: "
                f"lower the rate ({rate:g}), or look at these samples"
            )
        )
    for group in learner.optimiser.param_groups:
        group["lr"] = rate
    learner.optimiser.step()
    learner.averages.update(learner.weights)


class Buffers:
    """The buffers of what is trained, such as running means, which are to be the same in all processes."""

    def __init__(self, run: Run) -> None:
        trained = [role.module for role in run.roles.values() if role.trained]
        self.versions = [(buffer, buffer._version) for module in trained for buffer in module.buffers()]

    def moved(self) -> list[Tensor]:
        """Those that were written to since."""
        return [buffer for buffer, version in self.versions if buffer._version != version]


def shared(taken: Taken, processes: Processes) -> Taken:
    """The means of what all processes found, which is of the same names."""
    values = iter(processes.mean([*taken.losses.values(), *taken.figures.values()]))
    losses = {name: next(values) for name in taken.losses}
    return Taken(losses, {name: next(values) for name in taken.figures}, taken.moved)


def named(samples: Sequence[int]) -> str:
    """The numbers of the first 16 samples."""
    return f"{', '.join(map(str, samples[:16]))}{' ..' if len(samples) > 16 else ''}"


@contextmanager
def keyed(seed: int, step: int, rank: int = 0) -> Iterator[None]:
    """Within it, torch's global generator, which dropout draws from, depends on the seed and the step alone, and on
    the process, as samples are to have masks of their own.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    parts = (seed, "network", step) if rank == 0 else (seed, "network", step, rank)
    with torch.random.fork_rng(devices=devices):
        seed_generators(key_of(*parts))
        yield
