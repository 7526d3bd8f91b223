"""Which prediction type and noise schedule is a network consistent with?

A network that is told the wrong thing gives noise, and nothing raises. But each reading of it (prediction, schedule,
time scale) is a claim that can be tested. Noise clean samples x0 to a level, let the network denoise them under the
reading, and compare:

    denoising     the mean squared error of its x0 over that of the best linear denoiser for the same samples
    calibration   |E <D, x0 - D>| / E |x0 - mean|^2, which is 0 for a conditional mean, however weak the network

A right reading denoises better than any linear map; a wrong one does worse, mostly much worse. Clean samples are the
caller's, or, where there are none, what the network itself draws under the reading: then a wrong reading is tested on
its own garbage.

Where it is known what the files of a model say of it, a `Claim`, that is tested beside, and contradicted where it does
clearly worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser, Level
from fewstep.denoise.convert import Network
from fewstep.run.eager import sample
from fewstep.run.noise import unit_noise
from fewstep.solvers.compiler import compile

LAMBDAS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Levels at which readings are tested: sigma / alpha from 7.4 to 0.14."""


CLEAR = 0.5
"""How much less a score has to be, for one reading to be clearly better than another."""
OWN = "own"
"""The name of the schedule of a claim where it is not one of the usual ones."""


class Claim(NamedTuple):
    """How a model is read now; `sigma_data` is that of `fewstep.Network`."""

    prediction: str
    schedule: Schedule
    time_scale: float = 1.0
    sigma_data: float = 0.5


class Finding(NamedTuple):
    """One way to read a network's output; `score` is log denoising + calibration, less is better."""

    prediction: str
    schedule: str
    time_scale: float
    denoising: float
    calibration: float
    score: float


class Diagnosis(NamedTuple):
    """All readings, best first, and what follows from them in words; `best` is None where no reading holds.

    `claimed` is the reading of the claim. `fitting` is the best one where that clearly contradicts the claim: on the
    claim's own schedule if one there is nearly as good.
    """

    table: list[Finding]
    best: Finding | None
    verdict: str
    claimed: Finding | None = None
    fitting: Finding | None = None


def readings(claim: Claim | None = None) -> list[tuple[str, str, Schedule, float]]:
    """(prediction, schedule's name, schedule, time scale) of the readings that are tested."""
    found = _usual()
    if claim is None:
        return found
    own = (claim.prediction, claim.schedule.fingerprint, claim.time_scale)
    if own in [(prediction, schedule.fingerprint, scale) for prediction, _, schedule, scale in found]:
        return found
    kind = claim.schedule.kind
    others = {"flow": ("flow", "sample"), "edm": ("edm",)}.get(kind, ("epsilon", "v_prediction", "sample"))
    predictions = dict.fromkeys((claim.prediction, *others))
    return [*found, *((prediction, OWN, claim.schedule, claim.time_scale) for prediction in predictions)]


def _usual() -> list[tuple[str, str, Schedule, float]]:
    betas = {"linear": schedules.linear(), "scaled_linear": schedules.scaled_linear(), "cosine": schedules.cosine()}
    found = [(p, name, s, 1.0) for name, s in betas.items() for p in ("epsilon", "v_prediction", "sample")]
    flow = schedules.flow()
    found += [(p, "flow", flow, scale) for p in ("flow", "sample") for scale in (1.0, 1000.0)]
    return [*found, ("edm", "edm", schedules.edm(), 1.0)]


def diagnose(
    network: Callable[..., Any],
    shape: Sequence[int],
    *,
    condition: Mapping[str, Any] | None = None,
    data: Tensor | None = None,
    seed: int = 0,
    steps: int = 25,
    claim: Claim | None = None,
    on_reading: Callable[[int, int], None] | None = None,
) -> Diagnosis:
    """Test every reading of `network(x, time, **condition)`.

    Args:
        shape: (B, ..) of a batch; 32 images or more make the figures steady.
        condition: keyword arguments of the network, tensors with the batch first.
        data: (B, ..) clean samples as the network was trained on; without them it draws its own, `steps` evaluations
            each.
        claim: how the network is read now, to be tested beside the usual readings.
        on_reading: called with (done, all) before each reading, as this calls the network a few hundred times.
    """
    if data is not None and tuple(data.shape) != tuple(shape):
        raise InvalidInput(f"data has shape {tuple(data.shape)}, but the batch to test has {tuple(shape)}")
    if len(shape) < 2 or shape[0] < 2:
        raise InvalidInput(f"a diagnosis needs a batch of at least 2 images, got shape {tuple(shape)}")
    table, candidates = [], readings(claim)
    claimed = None
    for done, (prediction, name, schedule, scale) in enumerate(candidates):
        if on_reading is not None:
            on_reading(done, len(candidates))
        denoiser = Network(
            network,
            schedule,
            prediction,
            condition=condition,
            time_scale=scale,
            sigma_data=0.5 if claim is None else claim.sigma_data,
        )
        with torch.no_grad():
            clean = data
            if _ends_in_division(prediction, schedule):
                clean = torch.full(tuple(shape), math.nan)
            elif clean is None:
                plan = compile("dpmpp-2m", schedule=schedule, steps=steps, grid="exponential")
                clean = sample(plan, denoiser, shape=shape, seed=seed, check=False)
            denoising, calibration = _test(denoiser, schedule, clean.float(), seed)
        score = math.log(max(denoising, 1e-12)) + calibration if math.isfinite(denoising + calibration) else math.inf
        table.append(Finding(prediction, name, scale, denoising, calibration, score))
        own = claim is not None and schedule.fingerprint == claim.schedule.fingerprint and scale == claim.time_scale
        if own and claim is not None and prediction == claim.prediction:
            claimed = table[-1]
    table.sort(key=lambda reading: reading.score)
    best = table[0] if table[0].denoising < 1 else None
    return Diagnosis(table, best, _verdict(table, best), claimed, _fitting(table, best, claimed))


def _ends_in_division(prediction: str, schedule: Schedule) -> bool:
    """Whether the noisiest time has no signal, and x0 from epsilon would be divided by 0."""
    return prediction == "epsilon" and float(schedule.alpha(schedule.t_max)) == 0


def _fitting(table: Sequence[Finding], best: Finding | None, claimed: Finding | None) -> Finding | None:
    """The reading that contradicts the claimed one; see `Diagnosis`."""
    if best is None or claimed is None or claimed.score - best.score <= CLEAR:
        return None
    where = (claimed.schedule, claimed.time_scale)
    near = [one for one in table if one.score - best.score <= CLEAR and (one.schedule, one.time_scale) == where]
    return near[0] if near else best


def _test(denoiser: Denoiser, schedule: Schedule, clean: Tensor, seed: int) -> tuple[float, float]:
    """(denoising, calibration) of a reading on `clean` samples; infinite where they or the answers cannot be used."""
    mean = clean.mean(dim=0, keepdim=True)
    variance = float((clean - mean).square().mean())
    if not math.isfinite(variance) or not 1e-6 < variance < 1e6:
        return math.inf, math.inf
    logs, drifts = [], []
    for i, lam in enumerate(LAMBDAS):
        t = float(schedule.time_of_lambda(lam))
        alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
        eps = unit_noise(range(seed, seed + clean.shape[0]), 1 + i, clean)
        x = alpha * clean + sigma * eps
        level = Level(torch.full((clean.shape[0],), t), alpha, sigma, [(t, alpha, sigma)])
        estimate, _ = denoiser.estimate(x, level)
        linear = mean + alpha * variance / (alpha**2 * variance + sigma**2) * (x - alpha * mean)
        error, least = (float((clean - d).square().mean()) for d in (estimate, linear))
        if not math.isfinite(error):
            return math.inf, math.inf
        logs.append(math.log(max(error, 1e-12) / least))
        drifts.append(abs(float(((estimate - mean) * (clean - estimate)).mean())) / variance)
    return math.exp(sum(logs) / len(logs)), sum(drifts) / len(drifts)


def _verdict(table: Sequence[Finding], best: Finding | None) -> str:
    first, second = table[:2]
    if best is None:
        return (
            "No reading denoises better than a linear filter, so none is supported. Check that the condition is right, "
            "that the network is in eval mode with its trained weights, and that the data has its training's scale."
        )
    scale = "" if best.time_scale == 1 else f", time_scale={best.time_scale:g}"
    margin = second.score - first.score
    sure = "clearly" if margin > 0.5 else "probably" if margin > 0.1 else "by a narrow margin"
    schedule = "its_own_schedule" if best.schedule == OWN else f"fewstep.schedules.{best.schedule}()"
    return (
        f"The outputs are {sure} consistent with prediction={best.prediction!r} on the {best.schedule!r} schedule"
        f"{scale}: its error is {best.denoising:.2f} of the best linear denoiser's. Next comes {second.prediction!r} "
        f"on {second.schedule!r} with {second.denoising:.2f}. Use "
        f"fewstep.Network(network, {schedule}, {best.prediction!r}{scale})."
    )
