"""The presets of consistency training end at the optimum of their own discretisation on Gaussian data.

Their loss is pseudo-Huber, or the norm itself, whose optimum is known where what is left of the target, once the state
is known, is symmetric. So every state x_k comes with several rests of its data, and with each turned round: with S the
root of the covariance and N^2 = S^2 + k^2, data S z and noise e are made of p, which the state keeps, and of q and -q,

    z = N^-1 (S p + k q),    e = N^-1 (k p - S q),    x_k = S z + k e = N p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewstep import InvalidInput
from fewstep.cli.distill import method_of
from fewstep.distillation import PRESETS, Consistency
from fewstep.distillation.terms.span import noisiest
from fewstep.training import STUDENT, Diverged, Draws, Run, Settings, student_of, train
from fewstep.training.levels import time_of_ratio

from .gaussian import DIMENSIONS, Gaussian, Samples, exact, far, product
from .test_closed_form import FAR, NEAR, SCHEDULE, a_step_too_far, a_target_that_moves, no_end, the_end_everywhere

DATA = Gaussian.usual()._replace(variances=torch.tensor([1.0, 0.7, 0.4]).double())
"""Where one direction is much wider than the others, rests point along it, and a norm is nearly flat there."""
BASE, RESTS = 5, 6
"""States at each level, and rests of each, two of them opposite; of two alone the nearest point is not one point."""
EACH = BASE * RESTS
STEPS = 300


def ect_levels(method: Consistency) -> tuple[list[float], list[float]]:
    """The levels that follow one another from the noisiest on, by the paper's formula, and their shares."""
    k, chain = noisiest(SCHEDULE), list[float]()
    while k > 0:
        chain.append(k)
        r = k * (1 - (1 + 8 / (1 + np.exp(k))) / method.q)
        k = r if r >= method.lowest(SCHEDULE) else 0.0
    normal = (torch.tensor(chain, dtype=torch.float64).log() - method.mean) / method.deviation
    return [*chain, 0.0], torch.special.ndtr(normal).tolist()


def ict_levels(method: Consistency) -> tuple[list[float], list[float]]:
    """The grid, its last level as the data, and a share within each step of it."""
    grid = method.grid(SCHEDULE, method.first)
    edges = np.cumsum([0.0, *method.chances(grid)])
    return grid.tolist(), ((edges[1:] + edges[:-1]) / 2).tolist()


CASES: dict[str, Callable[[Consistency], tuple[list[float], list[float]]]] = {"ect": ect_levels, "ict": ict_levels}


def error(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """How far a student by a preset is from the optimum at the noisiest level."""
    method = replace(Consistency(**PRESETS["consistency"][name]), stages=1, first=5, least=0.4)
    levels, shares = CASES[name](method)
    own = levels[: len(shares)]
    total = EACH * len(own)
    made = [turned(k) for k in own]

    def normal(draws: Draws, purpose: str, shape: Sequence[int]) -> Tensor:
        data = purpose == "data"
        return torch.stack([made[place // EACH][0 if data else 1][place % EACH] for place in draws.places])

    def spread(draws: Draws, purpose: str) -> np.ndarray:
        return np.array([shares[place // EACH] for place in draws.places])

    monkeypatch.setattr(Draws, "normal", normal)
    monkeypatch.setattr(Draws, "spread", spread)
    times = list(map(float, time_of_ratio(SCHEDULE, own)))
    teacher = exact(DATA, SCHEDULE, times)
    roles = student_of(teacher)
    with torch.no_grad():  # not where the teacher is
        for parameter in roles[STUDENT].module.parameters():
            parameter.mul_(0.5)
    settings = Settings(STEPS, total, rate=0.04, width=0, clip=0, state_every=10**6, log_every=10**6)
    train(Run(method, roles, Samples(DATA), settings, folder))
    return far(roles[STUDENT].network, DATA, times[0], product([DATA.ddim(*pair) for pair in pairwise(levels)]))


def turned(k: float) -> tuple[Tensor, Tensor]:
    """What data and noise are made of at a level, each (states and rests, d)."""
    generator = torch.Generator().manual_seed(round(1000 * k))
    raw = torch.randn(BASE, DIMENSIONS, generator=generator, dtype=torch.float64)
    p = (torch.linalg.qr(raw - raw.mean(0))[0] * BASE**0.5).repeat(RESTS, 1)
    q = torch.randn(EACH // 2, DIMENSIONS, generator=generator, dtype=torch.float64)
    q = torch.cat([q, -q])
    root, inverse = DATA.matrix(DATA.variances.sqrt()), DATA.matrix((DATA.variances + k**2).rsqrt())
    return (p @ root + k * q) @ inverse, (k * p - q @ root) @ inverse


@pytest.mark.parametrize("name", CASES)
def test_a_preset_ends_at_the_optimum_of_its_own_levels(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert error(name, tmp_path, monkeypatch) < NEAR


@pytest.mark.parametrize(
    ("name", "fault"),
    [("ect", no_end), ("ect", a_step_too_far), ("ict", the_end_everywhere), ("ict", a_target_that_moves)],
)
def test_a_fault_in_a_preset_is_seen(
    name: str, fault: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    try:
        found = error(name, tmp_path, monkeypatch)
    except Diverged:
        return
    assert found > FAR


def test_presets_are_options_and_others_go_over_them() -> None:
    method = method_of("consistency", {"preset": "ect", "rows": 2, "q": 4.0})
    assert method == Consistency(step=None, gap="shrinking", q=4.0, stages=8, huber=1e-6, rows=2)
    assert method_of("consistency", {"preset": "ict"}) == Consistency(step=None, stages=8)
    with pytest.raises(InvalidInput, match="unknown preset of consistency 'etc': did you mean 'ect'"):
        method_of("consistency", {"preset": "etc"})
    with pytest.raises(InvalidInput, match="unknown option of regression 'preset'"):
        method_of("regression", {"preset": "ect"})
