"""Adversarial distillation: a student matches the moments that its discriminator sees, and each loss moves its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import InvalidInput, schedules
from fewstep.distillation import Adversarial, Checks, Measuring, Settings, Source, distill
from fewstep.distillation.judging import signs
from fewstep.distillation.methods import adversarial
from fewstep.distillation.terms import eyes, matching
from fewstep.distillation.terms.heads import CRITIC, Heads, HeadsRole, layers_of
from fewstep.training import STUDENT, Batch, Diverged, Draws, Run, further_roles, one_stage, student_of, train
from fewstep.zoo import classifier, container
from models import tiny

from .gaussian import DIMENSIONS, Gaussian, Samples, exact

SCHEDULE = schedules.scaled_linear()
DATA = Gaussian.usual()
WRONG = DATA._replace(mean=DATA.mean - 1, variances=3 * DATA.variances)
"""What the teacher takes the data for."""
FIRST = float(SCHEDULE.t_max)
SET = 40
NEAR, FAR = 1e-2, 5e-2


class Quadratic(nn.Module):
    """A discriminator that sees means and covariances alone."""

    def __init__(self, *_: Any) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(DIMENSIONS, DIMENSIONS, dtype=torch.float64))
        self.vector = nn.Parameter(torch.zeros(DIMENSIONS, dtype=torch.float64))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        x = features[0]
        return ((x @ self.matrix * x).sum(1) + x @ self.vector)[:, None]


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and noise of a step have their moments exactly, and the discriminator sees these."""
    generator = torch.Generator().manual_seed(3)
    raw = torch.randn(SET, 3 * DIMENSIONS, generator=generator, dtype=torch.float64)
    z = torch.linalg.qr(raw - raw.mean(0))[0] * SET**0.5
    part = {"data": 0, "start": 1, "noise of the penalty": 2}

    def normal(draws: Draws, purpose: str, shape: Sequence[int]) -> Tensor:
        first = DIMENSIONS * part[purpose]
        return z[[place % SET for place in draws.places], first : first + DIMENSIONS]

    monkeypatch.setattr(Draws, "normal", normal)
    monkeypatch.setattr(Draws, "spread", lambda draws, purpose: (np.array(draws.places) + 0.5) / draws.total)
    monkeypatch.setattr(Adversarial, "eyes", property(lambda self: lambda x: [x]))
    monkeypatch.setattr(adversarial, "heads_on", role_of)


def role_of(network: fs.Network, features: Sequence[Tensor], rate: float | None) -> HeadsRole:
    heads: Any = Quadratic()
    return HeadsRole(network, rate=rate, heads=heads)


def error(folder: Path) -> float:
    """The largest error of the mean and the covariance of what a student draws, of pure noise."""
    method = Adversarial(r1=1.0, critic_rate=0.04, times=(FIRST,))
    roles: Any = student_of(exact(WRONG, SCHEDULE, [FIRST]))
    roles |= further_roles(method, roles, Samples(DATA).batch(range(4)))
    table = roles[STUDENT].module
    with torch.no_grad():
        table.matrices[0], table.offsets[0] = 0.5 * torch.eye(DIMENSIONS), 0
    settings = Settings(steps=700, batch=SET, rate=0.015, width=0, clip=0, state_every=10**6, log_every=10**6)
    train(Run(method, roles, Samples(DATA), settings, folder))
    matrix, offset = table.at(FIRST)
    alpha, sigma = float(SCHEDULE.alpha(FIRST)), float(SCHEDULE.sigma(FIRST))
    real = DATA.matrix(DATA.variances)
    mean = offset + alpha * matrix @ DATA.mean
    covariance = matrix @ (alpha**2 * real + sigma**2 * torch.eye(DIMENSIONS)) @ matrix.T
    return float(max((covariance - real).abs().max(), (mean - DATA.mean).abs().max()))


@pytest.mark.usefixtures("moments")
def test_a_student_matches_the_moments_that_the_discriminator_sees_and_not_its_teachers(tmp_path: Path) -> None:
    assert error(tmp_path) < NEAR


def the_other_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Adversarial.losses

    def losses(self: Adversarial, *given: Any) -> Any:
        for loss in real(self, *given):
            yield loss._replace(value=-loss.value) if loss.role == STUDENT else loss

    monkeypatch.setattr(Adversarial, "losses", losses)


def swapped_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Adversarial.of_critic

    def of_critic(self: Adversarial, roles: Any, batch: Batch, x: Tensor, draws: Draws) -> Any:
        return real(self, roles, replace(batch, data=x), batch.data, draws)

    monkeypatch.setattr(Adversarial, "of_critic", of_critic)


def no_student_in_the_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Adversarial.of_critic

    def of_critic(self: Adversarial, roles: Any, batch: Batch, x: Tensor, draws: Draws) -> Any:
        return real(self, roles, batch, batch.data, draws)

    monkeypatch.setattr(Adversarial, "of_critic", of_critic)


@pytest.mark.usefixtures("moments")
@pytest.mark.parametrize("fault", [the_other_sign, swapped_sides, no_student_in_the_discriminator])
def test_a_fault_is_seen(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fault(monkeypatch)
    try:
        found = error(tmp_path)
    except Diverged:
        return
    assert not found < FAR


def test_the_penalty_is_the_square_of_the_gradient() -> None:
    """Of a linear discriminator it is exact on average."""
    generator = torch.Generator().manual_seed(0)
    w = torch.tensor([3.0, -4.0]).double()
    x, n = torch.randn(2, 20_000, 2, generator=generator, dtype=torch.float64)
    found = adversarial.penalty((x @ w)[:, None], ((x + adversarial.STEP * n) @ w)[:, None])
    assert float(found) == pytest.approx(25.0, rel=0.03)


def roles_of(method: Any, batch: Batch) -> dict[str, Any]:
    roles: Any = student_of(tiny_network())
    return roles | further_roles(method, roles, batch)


def tiny_network() -> fs.Network:
    return fs.Network(tiny.network(), SCHEDULE, "v_prediction")


def batch_of(count: int = 6) -> Batch:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % tiny.CLASSES
    return Batch(torch.randn(count, 1, 4, 4, generator=draw), condition={"label": labels})


def draws_of(count: int = 6, step: int = 0) -> Draws:
    return Draws(0, step, range(count), range(count), count)


def awake(roles: dict[str, Any]) -> dict[str, Any]:
    """With heads that answer."""
    with torch.no_grad():
        for weight in roles[CRITIC].module.parameters():
            weight.add_(0.1)
    return roles


@pytest.mark.parametrize(
    "method",
    [
        Adversarial(distil=1.0),
        fs.distillation.DistributionMatching(adversary=0.5),
        fs.distillation.DistributionMatching(adversary=0.5, gradient="sid"),
        fs.distillation.DistributionMatching(adversary=0.5, divergence="jensen-shannon"),
    ],
)
def test_each_loss_moves_its_own_networks_alone(method: Any) -> None:
    batch = batch_of()
    roles = awake(roles_of(method, batch))

    def moved() -> set[str]:
        found = {name for name, role in roles.items() if any(w.grad is not None for w in role.module.parameters())}
        for role in roles.values():
            role.module.zero_grad(set_to_none=True)
        return found

    seen = []
    for loss in method.losses(roles, batch, one_stage(0, 10), draws_of()):
        loss.value.backward()
        seen.append((moved(), {loss.role, *loss.also}))
    assert [own for own, _ in seen] == [said for _, said in seen]
    assert seen[0][0] == {STUDENT}
    assert len(seen) == 2


def test_the_student_hears_of_the_discriminator_after_its_share_of_the_training() -> None:
    method = fs.distillation.DistributionMatching(adversary=0.5, adversary_from=0.5, ratio=1)
    without = fs.distillation.DistributionMatching(ratio=1)
    batch = batch_of()
    roles = awake(roles_of(method, batch))
    values = [
        float(next(one.losses(roles, batch, one_stage(step, 10), draws_of())).value.detach())
        for one, step in ((without, 0), (method, 4), (method, 5))
    ]
    assert values[0] == values[1]
    assert values[2] != values[1]
    assert (method.hardest(10), without.hardest(10)) == (5, 0)


def test_heads_tell_apart_what_has_other_features() -> None:
    heads, draw = Heads([8, 16]), torch.Generator().manual_seed(1)
    data, drawings = (
        [torch.randn(32, 8, 4, 4, generator=draw) + by, torch.randn(32, 9, 16, generator=draw) - by]
        for by in (0.5, -0.5)
    )
    assert heads(data).shape == (32, 16 + 9)
    assert not heads(data).any()
    optimiser = torch.optim.Adam(heads.parameters(), 1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        value = matching.telling_apart(heads(data), heads(drawings))
        value.backward()
        optimiser.step()
    assert matching.accuracy(heads(data), heads(drawings)) == 1.0


class Block(nn.Linear):
    """A layer of a transformer."""


class Transformer(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(Block(2, 2) for _ in range(blocks))


def test_heads_stand_on_the_middle_or_on_blocks_or_on_what_is_named() -> None:
    assert layers_of(tiny.network()) == ("middle",)
    assert layers_of(tiny.network(), ["enter"]) == ("enter",)
    assert layers_of(Transformer(8)) == tuple(f"transformer_blocks.{i}" for i in (3, 5, 7))
    assert layers_of(Transformer(1)) == ("transformer_blocks.0",)
    with pytest.raises(InvalidInput, match="has no layer 'inside'"):
        layers_of(tiny.network(), ["inside"])
    with pytest.raises(InvalidInput, match="neither a middle nor blocks"):
        layers_of(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)))


def another_classifier(path: Path) -> Path:
    torch.manual_seed(7)
    classifier.save(path, classifier.DigitsClassifier(), {"accuracy": 0.1})
    return path


QUICK = Settings(steps=12, batch=8, rate=1e-3, state_every=5, log_every=4)
SOURCE = Source(count=16, steps=4, held_out=16, guidance=1.0)


def test_a_discriminator_that_sees_the_judges_features_is_refused(tmp_path: Path) -> None:
    method = Adversarial(features=str(classifier.shipped_path()))
    with pytest.raises(InvalidInput, match="which the student is judged by"):
        distill("digits", method, tmp_path / "run", settings=QUICK, source=SOURCE)


def test_pictures_are_shown_to_another_network(tmp_path: Path) -> None:
    method = Adversarial(features=str(another_classifier(tmp_path / "other.safetensors")), distil=0.5)
    assert method.eyes is not None
    assert method.eyes.layers == ("near", "far")
    measuring = Measuring(Checks(every=6, count=16))
    found = distill("digits", method, tmp_path / "run", settings=QUICK, source=SOURCE, measuring=measuring)
    assert found.report.student.error is None
    assert found.report.student.distance is not None
    assert any("to draw alike" in note for note in found.report.notes)


def test_features_that_are_nowhere_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'clips:here' is none of these"):
        eyes.eyes_of("clips:here")


@pytest.mark.parametrize(
    "method",
    [
        Adversarial(ratio=3),
        fs.distillation.DistributionMatching(adversary=0.1, ratio=3),
        fs.distillation.DistributionMatching(rows=2, ratio=4),
        fs.distillation.ContinuousConsistency(rows=2, matching=0.01, ratio=3, derivative="difference"),
    ],
)
def test_a_run_that_stops_inside_a_cycle_goes_on_to_the_same_bits(method: Any, tmp_path: Path) -> None:
    teacher = tiny.write(tmp_path / "tiny.safetensors")
    measuring = Measuring(Checks(every=0))

    def state(name: str) -> dict[str, Tensor]:
        return container.inspect(tmp_path / name / "states/step-00000012/state.safetensors").tensors()

    class Enough(Exception):
        pass

    def stop(now: Any) -> None:
        if now.step == 8:
            raise Enough

    watch = fs.distillation.Watch(training=stop)
    distill(teacher, method, tmp_path / "whole", settings=QUICK, source=SOURCE, measuring=measuring)
    with pytest.raises(Enough):
        distill(teacher, method, tmp_path / "cut", settings=QUICK, source=SOURCE, measuring=measuring, watch=watch)
    assert (tmp_path / "cut/states/latest").read_text() == "step-00000005"
    distill(teacher, method, tmp_path / "cut", settings=QUICK, source=SOURCE, measuring=measuring)
    one, other = state("whole"), state("cut")
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_looks_show_the_signs_and_end_a_run_that_gets_no_better(tmp_path: Path) -> None:
    teacher = tiny.write(tmp_path / "tiny.safetensors")
    seen: list[Any] = []
    method = fs.distillation.DistributionMatching(adversary=0.1, ratio=2)
    settings = Settings(steps=40, batch=8, rate=1e-12, state_every=20, log_every=20)
    measuring = Measuring(Checks(every=3, count=16, patience=2))

    def train_it() -> Any:
        watch = fs.distillation.Watch(health=seen.append)
        return distill(
            teacher, method, tmp_path / "run", settings=settings, source=SOURCE, measuring=measuring, watch=watch
        )

    found = train_it()
    last = seen[-1].step
    assert last == 3 + 2 * 3  # after the first look none is surely better
    assert set(seen[0].figures) >= {"distance", "diversity", "saturation", "fake score", "told apart"}
    assert "error" not in seen[0].figures
    assert (tmp_path / "run/states/latest").read_text() == f"step-{last:08d}"
    looks = len(seen)
    assert train_it().report.step == found.report.step
    assert len(seen) == looks


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"fake score": 1.8}, "1.8 times the teacher's on data: it does not keep up with the student; raise ratio"),
        ({"fake score": 0.4}, "drawings are simpler than data"),
        ({"told apart": 0.97}, "tells 97% of data and drawings apart"),
    ],
)
def test_a_sign_that_leaves_its_range_is_spoken_of(figures: dict[str, float], words: str) -> None:
    (found,) = signs.words_on(figures)
    assert words in found[1]
    assert not signs.words_on({"fake score": 1.0, "told apart": 0.7})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rows": 0}, "rows must be a whole number"),
        ({"r1": -1}, "r1 must be a number of at least 0"),
        ({"critic_rate": 0}, "critic_rate must be a number above 0"),
        ({"highest": 2}, "shares of the range"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Adversarial(**settings)
