"""A scheduler of diffusers and the `PlanScheduler` made from it, on the same network, start and noise.

The network is no function of anything simple, and it sees the time that it is told. The peer computes in float64
(`diffusers_peer`). Each step draws its noise anew from a seed of its own, so that noise which a peer draws and does not
use changes nothing, and Brownian paths are summed from unit noise in the order in which they are asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

import fewstep as fs
from fewstep.adapters.diffusers import PlanScheduler

from .diffusers_peer import in_precision
from .hosted_cases import Case
from .peers import replaced

BAR = 1e-5
ROUNDED = (
    "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep", "SASolver", "KDPM2Discrete",
    "KDPM2AncestralDiscrete",
)  # fmt: skip
"""Classes that tell whole times, where `round_times=True` makes ours tell them, too."""
FAILURES = (
    TypeError,
    ValueError,
    LookupError,
    AssertionError,
    NotImplementedError,
    RuntimeError,
    NameError,
    AttributeError,
)
"""What schedulers of diffusers raise where they cannot be set so."""
BROWNIAN = ("DPMSolverSDE", "CosineDPMSolverMultistep")


@dataclass(frozen=True)
class Outcome:
    """One case at one number of steps.

    kind: 'equal' or 'apart' by a `difference` relative to the largest value; 'refused' by ours, with the `words`;
    'broken' where the peer itself fails or is not finite.
    """

    case: Case
    steps: int | None
    kind: str
    difference: float = 0.0
    words: str = ""


def outcomes(case: Case) -> list[Outcome]:
    """What comes of one case at each of its numbers of steps."""
    kind = getattr(diffusers, f"{case.name}Scheduler")
    module = sys.modules[kind.__module__]
    try:
        with in_precision(module, "float64"):
            peer = kind(**case.config)
    except (TypeError, ValueError, NotImplementedError, ImportError) as error:
        return [Outcome(case, None, "broken", words=str(error))]
    try:
        ours = PlanScheduler.from_config(peer, round_times=case.name in ROUNDED)
    except fs.InvalidInput as error:
        return [Outcome(case, None, "refused", words=str(error))]
    again = case.name == "DPMSolverSinglestep"  # it changes its own configuration with the number of steps
    return [_compared(case, steps, None if again else peer, ours) for steps in case.counts]


def _compared(case: Case, steps: int | None, peer: Any, ours: PlanScheduler) -> Outcome:
    kind = getattr(diffusers, f"{case.name}Scheduler")
    try:
        with in_precision(sys.modules[kind.__module__], "float64"):
            theirs = run(peer or kind(**case.config), case, steps)
    except FAILURES as error:
        return Outcome(case, steps, "broken", words=f"{type(error).__name__} {error}")
    if not torch.isfinite(theirs).all():
        return Outcome(case, steps, "broken", words="not finite")
    try:
        found = run(ours, case, steps)
    except fs.InvalidInput as error:
        return Outcome(case, steps, "refused", words=str(error))
    difference = float((found - theirs).abs().max() / theirs.abs().max())
    return Outcome(case, steps, "equal" if difference < BAR else "apart", difference)


def run(scheduler: Any, case: Case, steps: int | None) -> Tensor:
    """The end of a run of a scheduler, as a pipeline drives it."""
    scheduler.set_timesteps(**({} if steps is None else {"num_inference_steps": steps}), **case.grid)
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 3, 4, 4, generator=generator, dtype=torch.float64)
    x = start * float(getattr(scheduler, "init_noise_sigma", 1.0))
    draws = "generator" in inspect.signature(scheduler.step).parameters
    more = {**case.call, **({"generator": generator} if draws else {})}
    with _brownian(generator), torch.no_grad():
        for i, t in enumerate(scheduler.timesteps):
            if case.name not in BROWNIAN:
                generator.manual_seed(1 + i)
            seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            output = torch.tanh(0.8 * seen + 0.5 * torch.sin(torch.tensor(float(t) * 0.003)))
            x = scheduler.step(output, t, x, **more).prev_sample
    return x


@contextlib.contextmanager
def _brownian(generator: torch.Generator) -> Iterator[None]:
    """Let the Brownian trees of diffusers be paths from the largest time down, with unit noise of `generator`."""

    class Path:
        def __init__(self, like: Tensor, *_: Any, **__: Any):
            self.known: list[tuple[float, Tensor]] = []
            self.like = like

        def at(self, time: float) -> Tensor:
            if not self.known:
                self.known.append((time, torch.zeros_like(self.like)))
            for known, value in self.known:
                if abs(known - time) <= 1e-12 * abs(time):
                    return value
            last, value = self.known[-1]
            unit = torch.randn(self.like.shape, generator=generator, dtype=torch.float64)
            self.known.append((time, value + unit * (last - time) ** 0.5))
            return self.known[-1][1]

        def __call__(self, one: Any, other: Any) -> Tensor:
            high, low = sorted((float(one), float(other)), reverse=True)
            first = self.at(high)
            return self.at(low) - first

    module = importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde")
    with replaced(module, BatchedBrownianTree=Path):
        yield
