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

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import as_denoiser
from fewstep.measure.counting import counted
from fewstep.measure.figure import REPLICATES, Figure, figure_of, resampling
from fewstep.measure.reference import Model, Reference, rms
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
    reference: Reference | Sequence[Reference] | None = None,
    *,
    shape: Sequence[int] | None = None,
    noise: Tensor | None = None,
    seed: int | Sequence[int] = 0,
    device: torch.device | str | None = None,
    model: str = "",
    value_range: tuple[float, float] = (-1.0, 1.0),
    replicates: int = REPLICATES,
    confidence: float = 0.95,
    bootstrap_seed: int = 0,
) -> TrajectoryError:
    """RMSE and PSNR of what `plan` makes of the reference's noise.

    Args:
        plan: a deterministic one that ends at clean data.
        denoiser: the model; with several references one for each, as conditions belong to the images of a batch.
        reference: from `Reference.solve`. A sequence of them is measured batch by batch, so that memory does not grow.
            Without one it is solved here, from `shape` and `seed`, or `noise`.
        model: where it and the reference's `model` are given, they have to be equal.
        value_range: of the data, for PSNR.

    Raises:
        InvalidInput: for a plan that draws noise, does not end clean or has another noise schedule than the reference;
            for a reference of another model.
        NonFinite: where the model returned NaN or infinity.
    """
    _check_plan(plan)
    low, high = value_range
    if not low < high:
        raise InvalidInput(f"value_range must be (low, high) with low < high, got {value_range}")
    many = isinstance(denoiser, Sequence)
    denoisers = [as_denoiser(d) for d in denoiser] if isinstance(denoiser, Sequence) else [as_denoiser(denoiser)]
    if reference is None:
        if many:
            raise InvalidInput("several denoisers need a reference each: give a sequence of Reference.solve(..)")
        schedule = denoisers[0].schedule or schedules.from_spec(plan.recipe.schedule)
        references = [
            Reference.solve(
                denoisers[0], schedule=schedule, shape=shape, noise=noise, seed=seed, device=device, model=model
            )
        ]
    elif shape is not None or noise is not None:
        raise InvalidInput("a reference has its own noise: leave out shape and noise")
    else:
        references = [reference] if isinstance(reference, Reference) else list(reference)
    if len(references) != len(denoisers) or not references:
        raise InvalidInput(f"give one denoiser for each reference, got {len(denoisers)} for {len(references)}")
    errors, images = [], 0
    for one, known in zip(denoisers, references, strict=True):
        _check_reference(plan, known, model)
        own, count = counted(one)
        errors.append(rms(sample(plan, own, noise=known.noise), known.solution))
        images += count.images
    return _result(torch.cat(errors), references, images, (low, high), replicates, confidence, bootstrap_seed)


def _result(
    errors: Tensor,
    references: Sequence[Reference],
    images: int,
    value_range: tuple[float, float],
    replicates: int,
    confidence: float,
    seed: int,
) -> TrajectoryError:
    squares = errors.square()
    roots = (resampling(len(errors), replicates, seed) @ squares).sqrt()
    rmse = float(squares.mean().sqrt())
    span = value_range[1] - value_range[0]
    floor = span * 1e-20  # 400 dB, so that an exact plan has a finite figure
    facts: dict[str, Any] = {
        "n": len(errors),
        "reference": "+".join(known.digest for known in references),
        "seed": seed,
        "confidence": confidence,
    }
    psnr = 20 * math.log10(span / max(rmse, floor))
    return TrajectoryError(
        rmse=figure_of("trajectory rmse", rmse, roots, better="less", **facts),
        psnr=figure_of(
            "trajectory psnr",
            psnr,
            20 * (span / roots.clamp_min(floor)).log10(),
            better="more",
            settings=f"range={span:g}",
            **facts,
        ),
        nfe=images / len(errors),
        reference_error=float(torch.cat([known.error for known in references]).square().mean().sqrt()),
        errors=errors,
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


def _check_reference(plan: Plan, reference: Reference, model: str) -> None:
    if plan.recipe.schedule_fingerprint != reference.schedule:
        raise InvalidInput(
            f"the plan has the noise schedule {plan.recipe.schedule_fingerprint} ({plan.recipe.schedule.get('kind')}), "
            f"the reference was solved on {reference.schedule}: compile the plan with the model's schedule"
        )
    if model and reference.model and model != reference.model:
        raise InvalidInput(
            f"the reference was solved for the model {reference.model!r}, this is {model!r}: solve it again"
        )
