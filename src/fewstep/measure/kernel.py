"""Kernel distance: the squared maximum mean discrepancy of features, without bias at any number of images.

    KD = mean k(x, x') + mean k(y, y') - 2 mean k(x, y),    k(a, b) = (a . b / d + 1)^3,    over pairs that differ

(Binkowski et al. 2018, arXiv 1801.01401, section 4; the estimator is eq. 3 of Gretton et al. 2012, JMLR 13.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Figure, figure_of
from fewstep.measure.pairs import mean_within, means_between
from fewstep.measure.summary import Summary, check_pair


def polynomial(x: Tensor, y: Tensor) -> Tensor:
    """k(x_i, y_j), (n, m), of rows (n, d) and (m, d)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kernel_distance(
    generated: Summary,
    reference: Summary,
    *,
    subset_size: int | None = None,
    subsets: int = 100,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Figure:
    """The kernel distance of the kept images of both summaries; it may be below 0 by chance.

    Args:
        subset_size: None takes all pairs, which varies least. A number gives the mean over `subsets` random subsets of
            so many images of both sides, as is usual for "KID" (100 of 1,000); the interval is then of that mean.
        bootstrap: over generated images, or over subsets; its seed draws these too.

    Raises:
        InvalidInput: for different features, fewer than 2 images a side, or subsets larger than a side.
    """
    facts = check_pair(generated, reference, 2, "a kernel distance")
    x, y = generated.rows, reference.rows
    if subset_size is None:
        weights = bootstrap.weights(len(x), different=2)
        own, owns = mean_within(x, polynomial, weights)
        other, _ = mean_within(y, polynomial, torch.ones(1, len(y), dtype=torch.float64) / len(y))
        cross = means_between(x, y, polynomial)
        value, samples, settings = own + other - 2 * float(cross.mean()), owns + other - 2 * weights @ cross, ""
    else:
        estimates = _subset_estimates(x, y, subset_size, subsets, bootstrap.seed)
        value = float(estimates.mean())
        samples = bootstrap.weights(subsets) @ estimates
        settings = f"subset_size={subset_size} subsets={subsets}"
    return figure_of(
        "kernel distance",
        value,
        samples,
        n=len(x),
        better="less",
        settings=settings,
        **bootstrap.facts,
        **facts._asdict(),
    )


def _subset_estimates(x: Tensor, y: Tensor, size: int, subsets: int, seed: int) -> Tensor:
    if not 2 <= size <= min(len(x), len(y)) or subsets < 2:
        raise InvalidInput(
            f"subsets must be 2 or more, of 2 to {min(len(x), len(y))} images (the smaller side), got {subsets} of "
            f"{size}"
        )
    rng = np.random.Generator(np.random.Philox(key=seed))
    even = torch.full((1, size), 1 / size, dtype=torch.float64)
    found = []
    for _ in range(subsets):
        a, b = (side[torch.from_numpy(rng.choice(len(side), size, replace=False))] for side in (x, y))
        own, other = (mean_within(side, polynomial, even)[0] for side in (a, b))
        found.append(own + other - 2 * float(means_between(a, b, polynomial).mean()))
    return torch.tensor(found, dtype=torch.float64)
