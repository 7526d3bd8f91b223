"""The covariance matrix adaptation evolution strategy (Hansen 2016, arXiv 1604.00772, section A): a minimum without
derivatives, of a function that is only asked for values.

Points are drawn from a normal distribution. The better half moves its mean; the path that the mean takes widens the
distribution along it, and tells whether steps are too short or too long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fewstep.core.schedule import Float


class Evolution:
    """A search from a `mean` (d,), whose standard deviation is `step` in every direction at first.

    What is drawn and what it was worth alone decide how it goes on, so the same seed gives the same points.
    """

    def __init__(self, mean: Float, step: float, seed: int) -> None:
        d = len(mean)
        self.mean, self.step, self.rng = np.array(mean, np.float64), float(step), np.random.default_rng(seed)
        self.population = 4 + int(3 * math.log(max(d, 1)))
        half = self.population // 2
        weights = np.log((self.population + 1) / 2) - np.log(np.arange(1, half + 1))
        self.weights = weights / weights.sum()
        mass = 1 / float(np.square(self.weights).sum())  # mu_eff
        self.mass, self.covariance = mass, np.eye(d)
        self.step_path, self.path = np.zeros(d), np.zeros(d)
        self.step_share = (mass + 2) / (d + mass + 5)
        self.damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (d + 1)) - 1) + self.step_share
        self.path_share = (4 + mass / d) / (d + 4 + 2 * mass / d)
        self.one = 2 / ((d + 1.3) ** 2 + mass)
        self.several = min(1 - self.one, 2 * (mass - 2 + 1 / mass) / ((d + 2) ** 2 + mass))
        self.usual = math.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d**2))  # the mean length of a normal vector
        self.rounds = 0

    def ask(self) -> Float:
        """(population, d) points."""
        values, vectors = np.linalg.eigh(self.covariance)
        normal = self.rng.standard_normal((self.population, len(self.mean)))
        return self.mean + self.step * (normal * np.sqrt(np.maximum(values, 1e-20))) @ vectors.T

    def tell(self, points: Float, values: Sequence[float]) -> None:
        """What the points that were asked for are worth; less is better, infinite is a point that cannot be."""
        self.rounds += 1
        order = np.argsort(np.nan_to_num(np.asarray(values, np.float64), nan=np.inf), kind="stable")
        moved = (points[order[: len(self.weights)]] - self.mean) / self.step
        mean = self.weights @ moved
        self.mean = self.mean + self.step * mean
        eigenvalues, vectors = np.linalg.eigh(self.covariance)
        root = vectors @ np.diag(np.maximum(eigenvalues, 1e-20) ** -0.5) @ vectors.T
        kept = 1 - self.step_share
        self.step_path = kept * self.step_path + math.sqrt(self.step_share * (2 - self.step_share) * self.mass) * (
            root @ mean
        )
        length = float(np.linalg.norm(self.step_path))
        steady = length / math.sqrt(1 - kept ** (2 * self.rounds)) < (1.4 + 2 / (len(mean) + 1)) * self.usual
        self.path = (1 - self.path_share) * self.path
        if steady:
            self.path = self.path + math.sqrt(self.path_share * (2 - self.path_share) * self.mass) * mean
        left = 1 - self.one - self.several
        lost = 0.0 if steady else self.one * self.path_share * (2 - self.path_share)
        along = np.outer(self.path, self.path)
        spread = (moved.T * self.weights) @ moved
        self.covariance = (left + lost) * self.covariance + self.one * along + self.several * spread
        self.step *= math.exp(self.step_share / self.damping * (length / self.usual - 1))
