"""Frechet distance between Gaussians that are fitted to features, and its value at infinitely many images.

    FD = |m_1 - m_2|^2 + tr C_1 + tr C_2 - 2 tr (C_1 C_2)^(1/2)        (Dowson & Landau 1982; Heusel et al. 2017,
                                                                        arXiv 1706.08500, eq. 6)

With C = F F^T the last trace is the sum of the singular values of F_1^T F_2: no square root of a product that need not
be symmetric, and no trouble where a covariance is singular. Directions whose variance is below the rounding of the
largest (d eps) count as having none.

The distance of n images exceeds that of infinitely many by about a / n, with another a for every model. FD-infinity is
the intercept of a line through the distances of smaller samples over 1 / n (Chong & Forsyth 2020, arXiv 1911.07023).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Figure, figure_of
from fewstep.measure.moments import Moments
from fewstep.measure.summary import Summary, check_pair

PARTS = 3
"""FD-infinity cuts the sample into 1, 2 and 3 parts: more of them bend the line where features are wide."""


class Gaussian(NamedTuple):
    """A Gaussian by its mean (d,) and a factor F (d, r) of its covariance: the eigenvectors of the r eigenvalues that
    are not 0, each times its root. `whiten` (r, d) is the pseudo-inverse of F.
    """

    mean: Tensor
    factor: Tensor
    whiten: Tensor

    @staticmethod
    def of(mean: Tensor, covariance: Tensor) -> Gaussian:
        """From mean and covariance, symmetric up to rounding."""
        if covariance.shape != (len(mean), len(mean)) or not bool(torch.isfinite(covariance).all()):
            raise InvalidInput(
                f"a mean of {len(mean)} needs a finite covariance of ({len(mean)}, {len(mean)}), got "
                f"{tuple(covariance.shape)}"
            )
        values, vectors = torch.linalg.eigh((covariance.double() + covariance.double().T) / 2)
        some = values > len(mean) * torch.finfo(torch.float64).eps * values.abs().max()
        roots, vectors = values[some].sqrt(), vectors[:, some]
        return Gaussian(mean.double(), vectors * roots, (vectors / roots).T)


def frechet_between(first: Gaussian, second: Gaussian) -> float:
    """The squared Frechet (2-Wasserstein) distance of two Gaussians, at least 0."""
    shift = first.mean - second.mean
    if not first.factor.numel() or not second.factor.numel():
        overlap = 0.0
    else:
        overlap = float(torch.linalg.svdvals(first.factor.T @ second.factor).sum())
    spread = float(first.factor.square().sum() + second.factor.square().sum())
    return max(0.0, float(shift @ shift) + spread - 2 * overlap)


def frechet_distance(
    generated: Summary,
    reference: Summary,
    *,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Figure:
    """The Frechet distance of all images of `generated` to those of `reference`, as a `Figure`.

    Its interval is of the first order: the bootstrap draws again what each kept image contributes to the distance
    (its influence), scaled to n images. It says how the figure varies at this n and not how far it is from infinity.

    Raises:
        InvalidInput: for different features, or where one side has no more images than the features are wide.
    """
    return _measured(generated, reference, "frechet distance", "", None, bootstrap)


def frechet_infinity(
    generated: Summary,
    reference: Summary,
    *,
    parts: int = PARTS,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Figure:
    """The Frechet distance extrapolated to infinitely many generated images; it may be below 0 by chance.

    For m = 1 .. `parts` the kept images are cut at random into m equal parts, and the mean of their m distances is a
    point at 1 / size; where more images were seen than kept, all of them are one more point. The reference is taken as
    it is: to be free of its own bias it should be large, and the same for all that is compared.

    Raises:
        InvalidInput: where the smallest part has no more images than the features are wide.
    """
    if type(parts) is not int or not 2 <= parts <= 50:
        raise InvalidInput(f"parts must be a whole number from 2 to 50, got {parts!r}")
    size = len(generated.kept.rows) // parts
    if size <= generated.id.width:
        raise InvalidInput(
            f"FD-infinity on features of width {generated.id.width} cuts {len(generated.kept.rows)} kept images into "
            f"{parts} parts of {size}, which must be larger than the width: give at least "
            f"{parts * (generated.id.width + 1)} images (and keep= as many), or fewer parts"
        )
    settings = f"parts={parts}"
    return _measured(generated, reference, "frechet distance infinity", settings, parts, bootstrap)


def _measured(
    generated: Summary,
    reference: Summary,
    measure: str,
    settings: str,
    parts: int | None,
    bootstrap: Bootstrap,
) -> Figure:
    facts = check_pair(
        generated, reference, generated.id.width + 1, f"a Frechet distance on {generated.id.width} features"
    )
    own, other = (_gaussian(summary.moments) for summary in (generated, reference))
    value = frechet_between(own, other)
    rows = generated.rows
    influence = frechet_influence(own, other, rows)
    moved = (bootstrap.weights(len(rows)) @ influence - influence.mean()) * (len(rows) / generated.n) ** 0.5
    if parts is not None:
        value = _extrapolated(generated, value, rows, other, parts, bootstrap.seed)
    return figure_of(
        measure,
        value,
        value + moved,
        n=generated.n,
        better="less",
        settings=settings,
        **bootstrap.facts,
        **facts._asdict(),
    )


def _gaussian(moments: Moments) -> Gaussian:
    return Gaussian.of(moments.mean, moments.covariance)


def frechet_influence(own: Gaussian, other: Gaussian, rows: Tensor) -> Tensor:
    """What each of `rows` (n, d) moves the distance of `own` to `other` by, to the first order, (n,).

    The gradient is 2 (m_1 - m_2) in the mean and I - T in the covariance, where T is the symmetric map that carries the
    first Gaussian's covariance to the second's, T C_1 T = C_2. A row's influence is the change along (x - m_1)
    and (x - m_1)(x - m_1)^T, up to a constant.
    """
    left, singular, _ = torch.linalg.svd(own.factor.T @ other.factor, full_matrices=False)
    rest = rows - own.mean
    turned = (rest @ own.whiten.T) @ left  # x^T T x = sum of singular (u^T W x)^2
    return 2 * rest @ (own.mean - other.mean) + rest.square().sum(dim=1) - turned.square() @ singular


def _extrapolated(generated: Summary, value: float, rows: Tensor, other: Gaussian, parts: int, seed: int) -> float:
    rng = np.random.Generator(np.random.Philox(key=seed))
    sizes, distances = [generated.n], [value]
    for m in range(1 if generated.n > len(rows) else 2, parts + 1):
        size = len(rows) // m
        order = torch.from_numpy(rng.permutation(len(rows)))
        found = []
        for part in range(m):
            moments = Moments(generated.id.width)
            moments.update(rows[order[part * size : (part + 1) * size]])
            found.append(frechet_between(_gaussian(moments), other))
        sizes.append(size)
        distances.append(float(np.mean(found)))
    slope_and_intercept = np.polyfit(1 / np.array(sizes, np.float64), np.array(distances), 1)
    return float(slope_and_intercept[1])
