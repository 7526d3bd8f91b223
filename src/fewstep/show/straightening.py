"""Reflow seen: the ways of a flow before and after it is trained on its own pairs of noise and data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from fewstep.core.schedule import Float
from fewstep.denoise.convert import Network
from fewstep.distillation import Reflow
from fewstep.show.students import Setting, roles_of, walked

FINE = 64
"""Steps of Euler in which a way is followed."""


class Ways(NamedTuple):
    """Ways from noise to data.

    Attributes:
        points: (FINE + 1, n, 2) states, even in time.
        jumps: (2, n, 2): the same noise, and where one step of Euler goes from it.
        straightness: mean over times of |x_1 - x_0 - v|^2, as a share of the mean |x_1 - x_0|^2; 0 is straight (Liu et
            al. 2023, arXiv 2209.03003, section 2.2, divided by the length).
        error: distance of one step's ends from those of the way, root mean square.
    """

    name: str
    points: Float
    jumps: Float
    straightness: float
    error: float

    def document(self) -> dict[str, Any]:
        """All numbers as JSON-serialisable data."""
        return {
            "ways": self.name,
            "straightness": self.straightness,
            "error": self.error,
            "points": self.points.tolist(),
            "jumps": self.jumps.tolist(),
        }


class Straightening(NamedTuple):
    """The ways of the exact flow, and those of the student that learned from their ends."""

    ways: Sequence[Ways]
    network: Network

    @property
    def finding(self) -> str:
        """What the numbers say."""
        before, after = self.ways
        ratio = before.straightness / after.straightness
        change = f"{ratio:.3g} times straighter" if ratio >= 1 else f"{1 / ratio:.3g} times more bent"
        return f"reflow makes ways {change}"


def straightening(setting: Setting, beginning: Network, steps: int, noise: Tensor, shown: int) -> Straightening:
    """A student by reflow of so many training steps; measured from noise (n, 2), the first of it shown."""
    teacher = setting.teacher
    student = setting.trained(Reflow(rows=1), roles_of(beginning, teacher), steps, 3e-3)
    return Straightening([ways("before", teacher, noise, shown), ways("after", student, noise, shown)], student)


def ways(name: str, network: Network, noise: Tensor, shown: int) -> Ways:
    """The ways of a network from noise (n, 2), and the first of them to show."""
    points, jumps = walked(network, noise, FINE), walked(network, noise, 1)
    wrong = np.sqrt(np.square(jumps[-1] - points[-1]).sum(axis=1).mean())
    return Ways(name, points[:, :shown], jumps[:, :shown], straightness_of(points), float(wrong))


def straightness_of(points: Float) -> float:
    """Of states (steps + 1, n, 2) that are even in time; see `Ways`."""
    whole = points[-1] - points[0]
    velocities = np.diff(points, axis=0) * (len(points) - 1)
    return float(np.square(velocities - whole).sum(axis=2).mean() / np.square(whole).sum(axis=1).mean())
