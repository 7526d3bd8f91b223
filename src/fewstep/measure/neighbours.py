"""Fidelity and variety by nearest neighbours: precision and recall, density and coverage.

A ball around each image reaches to its k-th nearest neighbour of its own set, itself not counted. With the balls of the
real images, B, and those of the generated ones, B':

    precision   share of generated images in some B          recall     share of real images in some B'
                                                (Kynkaanniemi et al. 2019, arXiv 1904.06991, eq. 1 and 2; k = 3)
    density     how many B a generated image is in, over k   coverage   share of B that hold a generated image
                                                (Naeem et al. 2020, arXiv 2002.09797, eq. 3 and 4; k = 5)

Recall counts on generated outliers, whose balls are large; coverage does not. Density can exceed 1. Distances that
agree within rounding are equal: a copy of an image is in the ball that reaches to that image.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Figure, figure_of
from fewstep.measure.pairs import tiles
from fewstep.measure.summary import Summary, check_pair

TIE = 1e-12
"""Of the squares of two rows, what rounding may change in the square of their distance, by far not all of it used."""


class PrecisionRecall(NamedTuple):
    """Share of generated images that look real, and share of real ones that the generator reaches."""

    precision: Figure
    recall: Figure


class DensityCoverage(NamedTuple):
    """How deep generated images lie among real ones, and the share of real ones that have a generated neighbour."""

    density: Figure
    coverage: Figure


def precision_recall(
    generated: Summary,
    reference: Summary,
    *,
    k: int = 3,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> PrecisionRecall:
    """`PrecisionRecall` of the kept images. The bootstrap draws the images that are counted again; the balls stay.

    Raises:
        InvalidInput: for different features, or a side with no more than k images.
    """
    x, y, facts = _sides(generated, reference, k)
    precise, recalled = (torch.zeros(len(side), dtype=torch.float64) for side in (x, y))
    own, other = radii(x, k).square(), radii(y, k).square()
    for rows, columns, least in _distances(x, y):
        inside = (least <= other[columns]).any(dim=1).double()
        precise[rows] = torch.maximum(precise[rows], inside)
        reached = (least <= own[rows, None]).any(dim=0).double()
        recalled[columns] = torch.maximum(recalled[columns], reached)
    return PrecisionRecall(_mean("precision", precise, facts, bootstrap), _mean("recall", recalled, facts, bootstrap))


def density_coverage(
    generated: Summary,
    reference: Summary,
    *,
    k: int = 5,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> DensityCoverage:
    """`DensityCoverage` of the kept images; otherwise as `precision_recall`."""
    x, y, facts = _sides(generated, reference, k)
    dense, covered = (torch.zeros(len(side), dtype=torch.float64) for side in (x, y))
    other = radii(y, k).square()
    for rows, columns, least in _distances(x, y):
        inside = (least <= other[columns]).double()
        dense[rows] += inside.sum(dim=1) / k
        covered[columns] = torch.maximum(covered[columns], inside.amax(dim=0))
    return DensityCoverage(_mean("density", dense, facts, bootstrap), _mean("coverage", covered, facts, bootstrap))


def radii(x: Tensor, k: int) -> Tensor:
    """The distance of each row of `x` (n, d) to its k-th nearest other row, (n,)."""
    found = []
    for rows in tiles(len(x)):
        nearest = torch.full((rows.stop - rows.start, k), torch.inf, dtype=x.dtype)
        for columns in tiles(len(x)):
            own = squares(x[rows], x[columns])
            if rows == columns:
                own.fill_diagonal_(torch.inf)
            both = torch.cat([nearest, own], dim=1)
            nearest = both.topk(k, dim=1, largest=False).values
        found.append(nearest[:, -1])
    return torch.cat(found).clamp_min(0).sqrt()


def squares(x: Tensor, y: Tensor, less: float = 0.0) -> Tensor:
    """|x - y|^2 - less (|x|^2 + |y|^2) for each row of `x` (n, d) and of `y` (m, d), (n, m), by one matrix product."""
    own, other = (z.square().sum(dim=1, keepdim=True) * (1 - less) for z in (x, y))
    left = torch.cat([-2 * x, own, torch.ones_like(own)], dim=1)
    return left @ torch.cat([y, torch.ones_like(other), other], dim=1).mT


def _distances(x: Tensor, y: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """The squared distances of rows of `x` and `y`, a tile at a time, less what rounding may add."""
    for rows in tiles(len(x)):
        for columns in tiles(len(y)):
            yield rows, columns, squares(x[rows], y[columns], TIE)


def _sides(generated: Summary, reference: Summary, k: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The rows of both, and what figures say of them."""
    if type(k) is not int or not 1 <= k <= 100:
        raise InvalidInput(f"k must be a whole number from 1 to 100, got {k!r}")
    facts = check_pair(generated, reference, k + 1, f"a {k}-th nearest neighbour")
    x, y = generated.rows, reference.rows
    if min(len(x), len(y)) <= k:
        raise InvalidInput(f"the summaries keep {len(x)} and {len(y)} images, more than k = {k} are needed: raise keep")
    middle = y.mean(dim=0)  # as far from it as rows are, so far rounding reaches
    return x - middle, y - middle, {"n": len(x), "settings": f"k={k}", **facts._asdict()}


def _mean(measure: str, scores: Tensor, facts: dict[str, Any], bootstrap: Bootstrap) -> Figure:
    samples = bootstrap.weights(len(scores)) @ scores
    return figure_of(measure, float(scores.mean()), samples, better="more", **bootstrap.facts, **facts)
