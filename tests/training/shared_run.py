"""What each of two processes does in the tests of processes: several runs, and a file of what came of them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

import fewstep as fs
from fewstep import schedules
from fewstep.training import Batch, Place, Processes, Run, state, student_of, train
from fewstep.training.loop import learner_of
from fewstep.training.step import back_propagate

from .linear import QUICK, Fit, Line, Samples


class Doubles(Samples):
    """Samples in float64."""

    def batch(self, numbers: Sequence[int]) -> Batch:
        return Batch(super().batch(numbers).data.double())


class Unreadable(Samples):
    """Which the process with the samples of the second half cannot read at one step."""

    def batch(self, numbers: Sequence[int]) -> Batch:
        if len(self.asked) == 9 and int(os.environ["RANK"]) == 1:
            raise OSError(errno.EIO, "Input/output error", "picture-7.png")
        return super().batch(numbers)


class Ending(Samples):
    """Which nobody can read after some steps."""

    def batch(self, numbers: Sequence[int]) -> Batch:
        if len(self.asked) == 14:
            raise KeyError("the end")
        return super().batch(numbers)


class EndingDoubles(Ending, Doubles):
    """Both."""


def exact_run(folder: Path, dtype: torch.dtype = torch.float64, **more: Any) -> Run:
    """A run in float64 without dropout, in which processes and parts differ by rounding alone."""
    teacher = fs.Network(Line().to(dtype), schedules.flow(), "sample")
    teacher.network.drop.p = 0.0
    return Run(Fit(), student_of(teacher), Doubles(), replace(QUICK, **more), folder)


def usual_run(folder: Path, method: Fit | None = None, data: Samples | None = None) -> Run:
    """With dropout, float32 and a later stage."""
    teacher = fs.Network(Line(), schedules.flow(), "sample")
    return Run(method or Fit(stages=2), student_of(teacher, succeeds=True), data or Samples(), QUICK, folder)


def gradients(run: Run, processes: Processes) -> list[torch.Tensor]:
    """Of one step, the mean over its samples in all processes."""
    module = run.roles["student"].module
    learners = {"student": learner_of(run.roles["student"], run.settings)}
    back_propagate(run, learners, run.method.phase(0, run.settings.steps), range(run.settings.batch), processes)
    processes.average_gradients(list(module.parameters()))
    return [weight.grad for weight in module.parameters() if weight.grad is not None]


def failure(run: Run, told: list[int] | None = None) -> list[str]:
    """The kind and the words of the error that a run ends with."""
    try:
        train(run, lambda now: None if told is None else told.append(now.step))
    except Exception as error:  # noqa: BLE001  # of any kind, which the test then asks for
        return [type(error).__name__, str(error)]
    return []


class Sides(Fit):
    """The loss is not finite on the samples of the second process."""

    name: ClassVar[str] = "sides"

    def losses(self, roles: Any, batch: Any, phase: Any, draws: Any) -> Any:
        for loss in super().losses(roles, batch, phase, draws):
            lost = phase.step == 5 and draws.places[0] >= 4
            yield loss._replace(value=loss.value * float("nan")) if lost else loss


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    processes = Processes.joined(Place())
    found: dict[str, Any] = {"rank": processes.rank, "count": processes.count}
    found["gradients"] = [one.tolist() for one in gradients(exact_run(folder / "gradients"), processes)]
    found["parts"] = [one.tolist() for one in gradients(exact_run(folder / "parts", accumulate=2), processes)]
    told: list[int] = []
    for name in ("first", "second"):
        data = Samples()
        module = train(usual_run(folder / name, data=data), lambda now: told.append(now.step))
        found[name] = [weight.tolist() for weight in module.parameters()]
        found["asked"] = data.asked
    found["told"] = told
    found["ended"] = failure(usual_run(folder / "resumed", data=Ending()))
    found["resumed"] = [weight.tolist() for weight in train(usual_run(folder / "resumed")).parameters()]
    failure(exact_run(folder / "handed")._replace(data=EndingDoubles()))
    found["diverged"] = failure(usual_run(folder / "diverged", Sides()))
    found["unreadable"] = failure(usual_run(folder / "unreadable", data=Unreadable()))
    found["uneven"] = failure(exact_run(folder / "uneven", batch=9))
    real = state.write_whole

    def full(path: Path, content: bytes) -> None:
        if "step-00000012" in str(path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(path, content)

    state.write_whole = full
    found["full"] = failure(usual_run(folder / "full"))
    state.write_whole = real
    (folder / f"found-{processes.rank}.json").write_text(json.dumps(found))
