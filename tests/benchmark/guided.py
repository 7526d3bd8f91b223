"""Models whose right guidance scale is known: under a label or a prompt all pictures are grey of about one mean.

Data of every condition is N(m, SPREAD^2) in each value, so the exact denoiser under guidance w, with the means m of the
condition and n of what it is guided away from, is that of N(n + w (m - n), SPREAD^2): the pictures have just that mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

import fewstep as fs
from fewstep.drawing import Drawing, Guidance
from fewstep.models.conditioner import Condition
from fewstep.pipeline import Pipeline

SPREAD, SHAPE, MEAN = 0.05, (1, 2, 2), 0.1
SCHEDULE = fs.schedules.linear()
PROMPTS = {"grey": MEAN}
NEGATIVES = {"lower": -0.05, "same": 0.0, "higher": 0.08}
"""The means under a prompt, and under what is guided away from; under no words it is 0."""


def network(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """The estimate of the data, by the mean under the condition."""
    alpha = torch.as_tensor(SCHEDULE.alpha(t.double().numpy()), dtype=x.dtype).reshape(-1, 1, 1, 1)
    sigma = torch.as_tensor(SCHEDULE.sigma(t.double().numpy()), dtype=x.dtype).reshape(-1, 1, 1, 1)
    mean = label.to(x.dtype).reshape(-1, 1, 1, 1)
    return mean + alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2) * (x - alpha * mean)


def of_classes() -> Pipeline:
    """One class, of the mean `MEAN`; the empty one has the mean 0."""
    means = torch.tensor([MEAN, 0.0])
    spec = fs.NetworkSpec(SCHEDULE, "sample", SHAPE, classes=1, digest="one class")
    return fs.load(lambda x, t, label: network(x, t, means[label]), spec=spec)


def of_words() -> Pipeline:
    """The same for the prompts of `PROMPTS` and the negative ones of `NEGATIVES`."""
    spec = fs.NetworkSpec(SCHEDULE, "sample", SHAPE, classes=1, digest="words")
    pipe = fs.load(network, spec=spec)
    return replace(pipe, model=replace(pipe.model, conditioner=Known()))


def real(mean: float, count: int = 256) -> Tensor:
    """Real pictures of this mean."""
    draw = torch.Generator().manual_seed(7)
    return (mean + SPREAD * torch.randn(count, *SHAPE, generator=draw)).clamp(-1, 1)


@dataclass(frozen=True)
class Known:
    """A `Conditioner` of the few prompts above."""

    field: Literal["prompts"] = "prompts"
    subjects: tuple[int | None, ...] = ()
    usual_scale: float = 2.0
    guides: bool = True
    distilled: bool = False

    @property
    def task(self) -> dict[str, Any]:
        return {}

    def check(self, name: str, drawing: Drawing, plan: fs.Plan) -> None:
        """Takes all."""

    def guides_away(self, guidance: Guidance) -> bool:
        return guidance.uses_negative

    def encode(self, drawings: Sequence[Drawing], warn: bool = False) -> list[Condition]:
        found = []
        for one in drawings:
            own, other = PROMPTS[str(one.subjects[0])], NEGATIVES.get(str(one.negative[0]), 0.0)
            away = {"label": torch.tensor([other])} if self.guides_away(one.guidance) else None
            found.append(Condition({"label": torch.tensor([own])}, away))
        return found
