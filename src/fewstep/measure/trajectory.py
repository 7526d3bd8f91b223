"""Trajectory error: how far a plan's images are from where the exact flow takes the same noise.

It needs no data and no features, is of the sampler alone, and is sure with few images, because both sides start from
the same noise. It does not say how good the model is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import as_denoiser
from fewstep.measure.converged import Converged, Model
from fewstep.measure.counting import counted
from fewstep.measure.distance import overall, squares
from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Figure, figure_of
from fewstep.run.eager import sample

RESOLVED = 3.0
"""An error is resolved where it is this many times the reference's own."""


@dataclass(frozen=True, eq=False)
class TrajectoryError:
    """How far a plan is from the converged solution.

    Attributes:
        rmse: root mean square error over all values of all images; `psnr` is 20 log10(range / rmse), in dB. Their
            bootstrap draws images, so two plans from the same noise are compared in pairs.
        nfe: network evaluations per image, counted.
        reference_error: the reference's own root mean square error, at most.
        errors: (n,) root mean square error of each image.
    """

    rmse: Figure
    psnr: Figure
    nfe: float
    reference_error: float
    errors: Tensor

    @property
    def resolved(self) -> bool:
        """Whether the error stands clear of the reference's own. Where not, solve the reference more tightly."""
        return self.rmse.value >= RESOLVED * self.reference_error


def trajectory_error(
    plan: Plan,
    denoiser: Model | Sequence[Model],
    reference: Converged | Sequence[Converged],
    *,
    model: str = "",
    value_range: tuple[float, float] = (-1.0, 1.0),
    bootstrap: Bootstrap = BOOTSTRAP,
) -> TrajectoryError:
    """RMSE and PSNR of what `plan` makes of the reference's noise.

    Args:
        plan: a deterministic one that ends at clean data.
        denoiser: the model; with several references one for each, as conditions belong to the images of a batch.
        reference: from `Converged.solve`. A sequence of them is measured batch by batch, so that memory does not grow.
        model: where it and the reference's `model` are given, they have to be equal.
        value_range: of the data, for PSNR.

    Raises:
        InvalidInput: for a plan that draws noise, does not end clean or has another noise schedule than the reference;
            for a reference of another model, or one that does not know its noise.
        NonFinite: where the model returned NaN or infinity.
    """
    _check_plan(plan)
    low, high = value_range
    if not low < high:
        raise InvalidInput(f"value_range must be (low, high) with low < high, got {value_range}")
    denoisers = list(denoiser) if isinstance(denoiser, Sequence) else [denoiser]
    references = [reference] if isinstance(reference, Converged) else list(reference)
    if len(references) != len(denoisers) or not references:
        raise InvalidInput(f"give one denoiser for each reference, got {len(denoisers)} for {len(references)}")
    errors, images = [], 0
    for one, known in zip(denoisers, references, strict=True):
        noise = _noise_of(plan, known, model)
        own, count = counted(as_denoiser(one))
        errors.append(squares(sample(plan, own, noise=noise), known.solution).cpu())
        images += count.images
    squared = torch.cat(errors)
    roots = (bootstrap.weights(len(squared)) @ squared).sqrt()
    rmse, span = overall(squared), high - low
    floor = span * 1e-20  # 400 dB, so that an exact plan has a finite figure
    facts: dict[str, Any] = {
        "n": len(squared),
        "reference": "+".join(known.digest for known in references),
        **bootstrap.facts,
    }
    psnr = 20 * math.log10(span / max(rmse, floor))
    decibels = 20 * (span / roots.clamp_min(floor)).log10()
    return TrajectoryError(
        rmse=figure_of("trajectory rmse", rmse, roots, better="less", **facts),
        psnr=figure_of("trajectory psnr", psnr, decibels, better="more", settings=f"range={span:g}", **facts),
        nfe=images / len(squared),
        reference_error=overall(torch.cat([known.error for known in references]).square()),
        errors=squared.sqrt(),
    )


def _check_plan(plan: Plan) -> None:
    if plan.stochastic:
        raise InvalidInput(
            f"{plan.recipe.sampler} draws noise on the way, so it does not approximate one solution: measure it by a "
            "distance on features, or compile it without noise, such as eta=0"
        )
    if plan.inputs != 1 or plan.recipe.reverse or plan.exit[1] != 0:
        raise InvalidInput(
            f"a trajectory error is of plans from noise to clean data; this one of {plan.recipe.sampler} ends at "
            f"(alpha, sigma) = {plan.exit} and starts from {plan.inputs} states"
        )


def _noise_of(plan: Plan, reference: Converged, model: str) -> Tensor:
    """The noise of a reference that this plan and model can be measured against."""
    if plan.recipe.schedule_fingerprint != reference.schedule:
        raise InvalidInput(
            f"the plan has the noise schedule {plan.recipe.schedule_fingerprint} ({plan.recipe.schedule.get('kind')}), "
            f"the reference was solved on {reference.schedule}: compile the plan with the model's schedule"
        )
    if model and reference.model and model != reference.model:
        raise InvalidInput(
            f"the reference was solved for the model {reference.model!r}, this is {model!r}: solve it again"
        )
    if reference.noise is None:
        raise InvalidInput("this reference does not know its noise: make it with Converged.solve")
    return reference.noise
