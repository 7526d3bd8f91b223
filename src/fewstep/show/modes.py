"""Modes kept and lost: which Gaussians of a mixture a student of one step draws, by regression and by matching.

Regression learns where each noise goes, so a student that cannot bend enough draws points between the modes. Matching
(Yin et al. 2024, arXiv 2405.14867) asks only how points are distributed; its divergence punishes a point between the
modes and not a mode that nobody draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.schedule import Float
from fewstep.denoise.convert import Network
from fewstep.distillation import DistributionMatching, Regression
from fewstep.distillation.matching import FAKE
from fewstep.show.mixture import Mixture
from fewstep.show.students import Setting, copied, drawn, roles_of
from fewstep.training import Role

NEAR = 3.0
"""A point is on a mode within so many standard deviations of its mean; of the data 1.1% are not."""
DATA, REGRESSION, AFTER, ALONE = "the data", "regression", "matching after regression", "matching alone"
RATIO, RATE, FAKE_RATE = 2, 2e-3, 5e-3
"""Steps of the fake score to one of the student, and the rates of both."""
LOST = 0.25
"""A mode is lost where less than this share of its weight is drawn."""


class Drawn(NamedTuple):
    """What was drawn.

    Attributes:
        points: (n, 2) the first of it.
        shares: (K,) of all points that are on each mode.
        between: the share of those that are on none.
        lost: how many modes are.
    """

    name: str
    points: Float
    shares: Float
    between: float
    lost: int

    def document(self) -> dict[str, Any]:
        """All numbers as JSON-serialisable data."""
        return {
            "drawn": self.name,
            "shares": self.shares.tolist(),
            "between": self.between,
            "lost": self.lost,
            "points": self.points.tolist(),
        }


class Modes(NamedTuple):
    """The data, and what students of one step draw; their networks by name."""

    drawn: Sequence[Drawn]
    networks: dict[str, Network]

    @property
    def finding(self) -> str:
        """What the numbers say."""
        before, after = self.named(REGRESSION), self.named(AFTER)
        lost = f"{after.lost} modes lost" if after.lost else "no mode lost"
        return f"matching draws {after.between:.1%} between modes where regression draws {before.between:.1%}, {lost}"

    def named(self, name: str) -> Drawn:
        """The drawing of that name."""
        return next(one for one in self.drawn if one.name == name)


def modes(setting: Setting, beginning: Network, lengths: tuple[int, int], noise: Tensor, shown: int) -> Modes:
    """Students by regression and by matching of so many training steps, from noise (n, 2), of which some is shown."""
    teacher, (regressing, matching) = setting.teacher, lengths
    regression = setting.trained(Regression(), roles_of(beginning, teacher), regressing, 3e-3)
    networks = {REGRESSION: regression}
    for name, begins in ((AFTER, regression), (ALONE, beginning)):
        roles = {**roles_of(begins, teacher), FAKE: Role(copied(beginning), rate=FAKE_RATE)}
        networks[name] = setting.trained(DistributionMatching(ratio=RATIO), roles, matching, RATE)
    found = {DATA: setting.points.data[: len(noise)], **{name: drawn(each, noise) for name, each in networks.items()}}
    return Modes([counted(name, points, setting.mixture, shown) for name, points in found.items()], networks)


def counted(name: str, points: Tensor, mixture: Mixture, shown: int) -> Drawn:
    """Points (n, 2) by their modes."""
    away, nearest = torch.cdist(points.double(), mixture.means).min(dim=1)
    on = away <= NEAR * mixture.stds[nearest]
    shares = torch.bincount(nearest[on], minlength=len(mixture.means)).double() / len(points)
    lost = int((shares < LOST * mixture.weights).sum())
    return Drawn(name, points[:shown].double().numpy(), shares.numpy(), float((~on).double().mean()), lost)
