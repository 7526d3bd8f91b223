"""Modes kept and lost: which Gaussians of a mixture a student of one step draws, by regression and by matching.

Regression learns where each noise goes, so a student that cannot bend enough draws points between the modes. Matching
(Yin et al. 2024, arXiv 2405.14867) asks only how points are distributed; its divergence punishes a point between the
modes and hardly a mode that nobody draws. Scores that are compared at little noise alone do not see from one mode to
the next: a student that begins at a single point, as the teacher's answer to pure noise is, then depends on luck.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.schedule import Float
from fewstep.denoise.convert import Network
from fewstep.distillation import DistributionMatching, Regression
from fewstep.distillation.terms.matching import FAKE
from fewstep.show.mixture import Mixture
from fewstep.show.students import Setting, copied, drawn, roles_of
from fewstep.training import Role

NEAR = 3.0
"""A point is on a mode within so many standard deviations of its mean; of the data 1.1% are not."""
DATA, REGRESSION, MATCHING, NARROW = "the data", "regression", "matching", "matching at little noise"
RATIO, RATE, FAKE_RATE = 2, 4e-3, 5e-3
"""Steps of the fake score to one of the student, and the rates of both."""
WIDE, LITTLE = 0.7, 0.3
"""Up to which share of the range of noise the scores are compared."""
LOST = 0.25
"""A mode is lost where less than this part of its weight is drawn."""


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
        before, after, narrow = (self.named(name) for name in (REGRESSION, MATCHING, NARROW))
        return (
            f"matching draws {after.between:.1%} between modes, regression {before.between:.1%}; it loses "
            f"{after.lost} of {len(after.shares)} modes, at little noise alone {narrow.lost}"
        )

    def named(self, name: str) -> Drawn:
        """The drawing of that name."""
        return next(one for one in self.drawn if one.name == name)


def modes(setting: Setting, beginning: Network, lengths: tuple[int, int], noise: Tensor, shown: int) -> Modes:
    """Students by regression and by matching of so many training steps, from noise (n, 2), of which some is shown."""
    teacher, (regressing, matching) = setting.teacher, lengths
    regression = setting.trained(Regression(), roles_of(beginning, teacher), regressing, 3e-3)
    networks = {REGRESSION: regression}
    for name, begins, highest in ((MATCHING, regression, WIDE), (NARROW, beginning, LITTLE)):
        roles = {**roles_of(begins, teacher), FAKE: Role(copied(beginning), rate=FAKE_RATE)}
        method = DistributionMatching(ratio=RATIO, highest=highest)
        networks[name] = setting.trained(method, roles, matching, RATE)
    found = {DATA: setting.points.data[: len(noise)], **{name: drawn(each, noise) for name, each in networks.items()}}
    return Modes([counted(name, points, setting.mixture, shown) for name, points in found.items()], networks)


def counted(name: str, points: Tensor, mixture: Mixture, shown: int) -> Drawn:
    """Points (n, 2) by their modes."""
    away, nearest = torch.cdist(points.double(), mixture.means).min(dim=1)
    on = away <= NEAR * mixture.stds[nearest]
    shares = torch.bincount(nearest[on], minlength=len(mixture.means)).double() / len(points)
    lost = int((shares < LOST * mixture.weights).sum())
    return Drawn(name, points[:shown].double().numpy(), shares.numpy(), float((~on).double().mean()), lost)
