"""Training on data ends at the exact denoiser of Gaussian data, whatever is predicted, weighed and drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import fewstep as fs
from distillation.gaussian import DIMENSIONS, Gaussian, Samples, Table
from fewstep import InvalidInput, schedules
from fewstep.training import STUDENT, Batch, Denoising, Draws, Role, Run, Settings, denoising, one_stage, train
from fewstep.training.levels import at_times

NEAR, FAR = 1e-3, 5e-3
"""A network is as near to the exact denoiser as that, and as far with a fault."""
DATA = Gaussian.usual()
SET, LEVELS = 18, 3
FAST = Settings(steps=190, batch=SET * LEVELS, rate=0.1, width=0, clip=0, state_every=10**6, log_every=10**6)
EDM = schedules.edm(20.0, 0.02)
NETWORKS = {
    "epsilon": schedules.scaled_linear(),
    "sample": schedules.cosine(),
    "v_prediction": schedules.scaled_linear(zero_snr=True),
    "flow": schedules.flow(),
    "edm": EDM,
}


def untrained(prediction: str, schedule: fs.schedules.Schedule, method: Denoising) -> tuple[fs.Network, list[float]]:
    """A network that answers zero, linear in its input at the times that the method draws, and these times."""
    network = fs.Network(lambda x, t: x, schedule, prediction)
    drawn = denoising.distribution(method.times, method.mean, method.deviation, network)
    times = drawn.at(network, (np.arange(LEVELS) + 0.5) / LEVELS)
    told = np.log(schedule.ratio(times)) / 4 if prediction == "edm" else times
    table = Table(
        told.tolist(), torch.zeros(LEVELS, DIMENSIONS, DIMENSIONS).double(), torch.zeros(LEVELS, DIMENSIONS).double()
    )
    return fs.Network(table, schedule, prediction), times.tolist()


@pytest.fixture
def exact_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each level meets data and noise whose means and covariances are exact, so that few samples give expectations."""
    generator = torch.Generator().manual_seed(3)
    raw = torch.randn(SET, 2 * DIMENSIONS, generator=generator, dtype=torch.float64)
    z = torch.linalg.qr(raw - raw.mean(0))[0] * SET**0.5

    def normal(draws: Draws, purpose: str, shape: Sequence[int]) -> Tensor:
        part = slice(0, DIMENSIONS) if purpose == "data" else slice(DIMENSIONS, None)
        return z[[place % SET for place in draws.places], part]

    def spread(draws: Draws, purpose: str) -> np.ndarray:
        return (np.array(draws.places) // SET + 0.5) / (draws.total // SET)

    monkeypatch.setattr(Draws, "normal", normal)
    monkeypatch.setattr(Draws, "spread", spread)


def error(prediction: str, schedule: fs.schedules.Schedule, method: Denoising, folder: Path) -> float:
    """The largest error of a trained network's estimate, over the basis of the states and zero, at each of the times;
    states in units of their standard deviation.
    """
    network, times = untrained(prediction, schedule, method)
    train(Run(method, {STUDENT: Role(network)}, Samples(DATA), FAST, folder))
    worst = 0.0
    for t in times:
        k, alpha, sigma = float(schedule.ratio(t)), float(schedule.alpha(t)), float(schedule.sigma(t))
        x = torch.cat([torch.eye(DIMENSIONS), torch.zeros(1, DIMENSIONS)]).double() * (alpha**2 + sigma**2) ** 0.5
        found = network.estimate(x, at_times(schedule, t, x))[0].detach()
        exact = DATA.mean + (x / alpha - DATA.mean) @ DATA.matrix(DATA.estimate(k))
        worst = max(worst, float((found - exact).abs().max()))
    return worst


@pytest.mark.usefixtures("exact_moments")
@pytest.mark.parametrize("min_snr", [None, 5.0])
@pytest.mark.parametrize("prediction", NETWORKS)
def test_a_network_ends_at_the_exact_denoiser(prediction: str, min_snr: float | None, tmp_path: Path) -> None:
    assert error(prediction, NETWORKS[prediction], Denoising(min_snr=min_snr), tmp_path) < NEAR


@pytest.mark.usefixtures("exact_moments")
@pytest.mark.parametrize(
    ("prediction", "schedule", "times"),
    [
        ("flow", schedules.flow(3.0), "uniform"),
        ("flow", schedules.flow(), "log-normal"),
        ("v_prediction", schedules.cosine(), "logistic"),
        ("epsilon", schedules.cosine(), "log-normal"),
        ("edm", schedules.cosine(), "uniform"),
    ],
)
def test_how_times_are_drawn_does_not_move_it(prediction: str, schedule: Any, times: str, tmp_path: Path) -> None:
    assert error(prediction, schedule, Denoising(times=times), tmp_path) < NEAR


def noise_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Denoising.target

    def target(self: Denoising, network: fs.Network, host: Any) -> Any:
        of_data, of_noise, weight = real(self, network, host)
        return of_noise, of_data, weight

    monkeypatch.setattr(Denoising, "target", target)


def another_level(monkeypatch: pytest.MonkeyPatch) -> None:
    real = denoising.noised
    monkeypatch.setattr(denoising, "noised", lambda x0, noise, level: real(x0, 0.9 * noise, level))


def other_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    real = denoising.noised
    monkeypatch.setattr(denoising, "noised", lambda x0, noise, level: real(x0, noise.roll(1, 0), level))


@pytest.mark.usefixtures("exact_moments")
@pytest.mark.parametrize(
    ("prediction", "fault"),
    [("flow", noise_for_data), ("edm", noise_for_data), ("flow", other_noise), ("v_prediction", another_level)],
)
def test_a_fault_is_seen(
    prediction: str, fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fault(monkeypatch)
    assert error(prediction, NETWORKS[prediction], Denoising(), tmp_path) > FAR


class Told(NamedTuple):
    """What a network was asked in a step."""

    x: Tensor
    t: Tensor
    label: Tensor


class Asked:
    """A network that notes what it is asked and answers zero."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def __call__(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.told.append(Told(x, t, label))
        return torch.zeros_like(x)


def step(
    method: Denoising, samples: Sequence[int], data: Tensor, labels: Tensor, number: int = 0
) -> tuple[Told, float]:
    """What the network is told in a step, and the loss."""
    network = Asked()
    roles = {STUDENT: Role(fs.Network(network, schedules.flow(), "flow"))}
    batch = Batch(data, None, {"label": labels}, {"label": torch.full_like(labels, 10)})
    draws = Draws(7, number, samples, range(len(samples)), len(samples))
    (loss,) = method.losses(roles, batch, one_stage(number, 100), draws)
    return network.told[0], float(loss.value)


@pytest.mark.parametrize("prediction", NETWORKS)
def test_min_snr_weighs_as_in_its_paper(prediction: str) -> None:
    schedule = NETWORKS[prediction]
    network = fs.Network(lambda x, t: x, schedule, prediction)
    times = np.linspace(schedule.t_min, schedule.t_min + 0.9 * (schedule.t_max - schedule.t_min), 50)
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    snr, d = (alpha / sigma) ** 2, network.sigma_data
    least = np.minimum(snr, 5.0)
    wanted = {
        "epsilon": least / snr,
        "sample": least,
        "v_prediction": least / (snr + 1),
        "flow": least * sigma**2,
        "edm": least * (d / snr**0.5) ** 2 / (1 / snr + d**2),
    }
    host = np.stack([times, alpha, sigma], 1)
    assert np.allclose(Denoising(min_snr=5.0).target(network, host)[2], wanted[prediction], rtol=1e-9)
    assert np.all(Denoising().target(network, host)[2] == 1)


def test_edms_weighting_is_equal_weight_in_what_the_network_says() -> None:
    """lambda(sigma) c_out^2 = 1, eq. 8 of the paper."""
    network = fs.Network(lambda x, t: x, EDM, "edm", sigma_data=0.5)
    sigma = np.geomspace(0.02, 20.0, 30)
    out = network.coefficients(sigma, np.ones(30), sigma)[1]
    assert np.allclose((sigma**2 + 0.25) / (0.5 * sigma) ** 2 * out**2, 1)


def test_the_loss_of_edm_is_that_of_its_paper() -> None:
    """The mean of lambda(sigma) |D(y + n; sigma) - y|^2, eq. 2 and 8, with D of eq. 7 and the columns of table 1."""
    told: list[Tensor] = []
    d, data = 0.6, torch.randn(64, 3, generator=torch.Generator().manual_seed(1)).double()

    def raw(x: Tensor, noise: Tensor) -> Tensor:
        told.append(noise)
        return torch.sin(2 * x + noise[:, None])

    draws = Draws(7, 3, range(64), range(64), 64)
    roles = {STUDENT: Role(fs.Network(raw, EDM, "edm", sigma_data=d))}
    (loss,) = Denoising().losses(roles, Batch(data), one_stage(3, 100), draws)
    assert np.allclose(told[0].mean(), -1.2 / 4, atol=0.02)
    assert np.allclose(told[0].std(), 1.2 / 4, atol=0.02)
    sigma = (4 * told[0]).exp()[:, None]
    y = data + sigma * draws.normal("noise", (3,)).double()
    c_skip, c_out = d**2 / (sigma**2 + d**2), sigma * d / (sigma**2 + d**2).sqrt()
    denoised = c_skip * y + c_out * raw(y / (sigma**2 + d**2).sqrt(), told[0])
    weight = (sigma**2 + d**2) / (sigma * d) ** 2
    assert float(loss.value) == pytest.approx(float((weight * (denoised - data) ** 2).mean()), rel=1e-6)


def test_a_share_of_the_samples_is_told_the_empty_condition() -> None:
    method, data, labels = Denoising(dropout=0.1), torch.zeros(4000, 1), torch.arange(4000) % 10
    told = step(method, range(4000), data, labels)[0].label
    dropped = told == 10
    assert torch.equal(told[~dropped], labels[~dropped])
    again = step(method, range(4000), data, labels, number=1)[0].label == 10
    assert float((dropped | again).double().mean()) == pytest.approx(1 - 0.9**2, abs=0.02)  # another step, others
    alone = step(method, [7, 2500], data[:2], labels[[7, 2500]])[0].label
    assert torch.equal(alone, told[[7, 2500]])


def test_without_an_empty_condition_none_is_dropped() -> None:
    network = fs.Network(lambda x, t: x, schedules.flow(), "flow")
    with pytest.raises(InvalidInput, match="no empty condition"):
        next(
            Denoising(dropout=0.1).losses(
                {STUDENT: Role(network)}, Batch(torch.zeros(2, 1)), one_stage(0, 1), Draws(0, 0, [0, 1], [0, 1], 2)
            )
        )


def test_conditions_of_other_lengths_are_named() -> None:
    own, empty = {"context": torch.zeros(2, 7, 4)}, {"context": torch.zeros(2, 5, 4)}
    with pytest.raises(InvalidInput, match=r"'context' has shape \(2, 7, 4\)"):
        denoising.dropped(Batch(torch.zeros(2, 1), None, own, empty), np.array([True, False]))
    with pytest.raises(InvalidInput, match=r"names \['label'\]"):
        denoising.dropped(Batch(torch.zeros(2, 1), None, own, {"label": torch.zeros(2)}), np.array([True, False]))


@pytest.mark.parametrize(
    ("prediction", "schedule", "wanted"),
    [
        ("flow", schedules.flow(), ("euler", "trailing")),
        ("epsilon", schedules.linear(), ("dpmpp-2m", "trailing")),
        ("edm", schedules.edm(), ("dpmpp-2m", "karras")),
    ],
)
def test_the_usual_plan_suits_the_schedule(prediction: str, schedule: Any, wanted: tuple[str, str]) -> None:
    plan = Denoising(rows=8).plan(fs.Network(lambda x, t: x, schedule, prediction))
    assert (plan.recipe.sampler, plan.recipe.grid, len(plan.rows)) == (*wanted, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"times": "normal"}, "did you mean 'log-normal'"),
        ({"min_snr": 0}, "min_snr must be above 0"),
        ({"deviation": -1.0}, "deviation must be above 0"),
        ({"mean": float("nan")}, "mean must be a finite number"),
        ({"dropout": 1.0}, "below 1, got 1.0"),
        ({"transport": 1}, "transport is True or False"),
        ({"rows": 0}, "rows must be a whole number"),
        ({"sampler": "eular"}, "did you mean 'euler'"),
    ],
)
def test_impossible_settings_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Denoising(**options)


@pytest.mark.parametrize(
    ("method", "prediction", "schedule", "message"),
    [
        (Denoising(), "epsilon", schedules.linear(zero_snr=True), "epsilon says nothing of the data where alpha is 0"),
        (Denoising(), "edm", schedules.flow(), "edm says nothing of the data"),
        (Denoising(transport=True), "epsilon", schedules.linear(), "ways of a flow, and the schedule is linear"),
        (Denoising(times="logit-normal"), "epsilon", schedules.linear(), "use log-normal"),
        (Denoising(times="uniform"), "edm", schedules.edm(), "nearly all noise"),
        (Denoising(times="uniform", mean=0.0), "flow", schedules.flow(), "uniform times have no mean"),
        (Denoising(mean=30.0), "edm", schedules.edm(), "outside the edm schedule"),
        (Denoising(sampler="heun"), "flow", schedules.flow(), "heun takes 39 rows in 20 steps"),
    ],
)
def test_settings_that_do_not_fit_a_network_are_refused(
    method: Denoising, prediction: str, schedule: Any, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        method.plan(fs.Network(lambda x, t: x, schedule, prediction))
