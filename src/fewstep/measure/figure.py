"""A figure: a measured number with all that another has to share before the two may be compared.

The interval is a bootstrap's (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapters 13 and 14): the
images are drawn again, with replacement, `REPLICATES` times from a seed. Figures of the same n and seed draw the same
places. So the difference of two figures that come from the same noise is a paired one, which is much surer than either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, one_of

REPLICATES = 500
"""Bootstrap samples unless the caller says otherwise."""


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        measure: what was measured, such as "frechet distance"; `settings` says how where there is a choice ("k=5").
        value: the number. `better` is the direction that is good: "less" or "more".
        low, high: its interval at `confidence`, for other samples of the same size from the same model, measured
            against the same reference.
        n: images that it rests on.
        features, feature_digest: the features it was measured on; empty where there are none.
        reference: digest of what it was measured against; empty where there is nothing.
        seed: of the bootstrap; `replicates` are the value in each of its samples.
    """

    measure: str
    value: float
    low: float
    high: float
    n: int
    better: str
    settings: str = ""
    features: str = ""
    feature_digest: str = ""
    reference: str = ""
    confidence: float = 0.95
    seed: int = 0
    replicates: tuple[float, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        one_of("better", self.better, ("less", "more"))
        object.__setattr__(self, "replicates", tuple(float(r) for r in self.replicates))

    def to_json(self) -> dict[str, Any]:
        """The figure as JSON values."""
        return {**asdict(self), "replicates": list(self.replicates)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Figure:
        """The inverse of `to_json`. Raises `InvalidInput` for missing or unknown fields, naming them."""
        known = {each.name for each in fields(cls)}
        if set(document) != known:
            raise InvalidInput(
                f"not a figure: it lacks {sorted(known - set(document))} and has unknown "
                f"{sorted(set(document) - known)}"
            )
        return cls(**document)

    def __str__(self) -> str:
        return f"{self.measure} {self.value:.4g} [{self.low:.4g}, {self.high:.4g}], n = {self.n:,}"


class Difference(NamedTuple):
    """`value` is the first figure less the second, with its interval; `sure` says whether that leaves 0 out."""

    value: float
    low: float
    high: float
    sure: bool


def compare(first: Figure, second: Figure) -> Difference:
    """The difference of two figures, with an interval from their common bootstrap.

    Raises:
        InvalidInput: where they are not alike: another measure, n, features, reference, settings or bootstrap.
    """
    for name, cure in _ALIKE.items():
        a, b = getattr(first, name), getattr(second, name)
        if a != b:
            raise InvalidInput(f"these figures cannot be compared: their {name} are {a!r} and {b!r}. {cure}")
    if len(first.replicates) != len(second.replicates) or not first.replicates:
        raise InvalidInput(
            f"these figures have {len(first.replicates)} and {len(second.replicates)} bootstrap replicates: measure "
            "both with the same replicates="
        )
    low, high = quantiles(np.subtract(first.replicates, second.replicates), first.confidence)
    return Difference(first.value - second.value, low, high, not low <= 0 <= high)


_ALIKE = {
    "measure": "Compare like with like",
    "settings": "Measure both in the same way",
    "n": "Distances depend on the sample size: measure both on equally many images",
    "features": "Measure both on the same features",
    "feature_digest": "The features have the same name but other weights: measure both on the same ones",
    "reference": "Measure both against the same reference",
    "confidence": "Measure both at the same confidence",
}


@dataclass(frozen=True)
class Bootstrap:
    """How an interval is drawn: so many samples, the middle share of them, and the seed that decides the samples."""

    replicates: int = REPLICATES
    confidence: float = 0.95
    seed: int = 0

    def weights(self, n: int, different: int = 1) -> Tensor:
        """See `resampling`."""
        return resampling(n, self.replicates, self.seed, different)

    @property
    def facts(self) -> dict[str, Any]:
        """What a figure says of it."""
        return {"confidence": self.confidence, "seed": self.seed}


BOOTSTRAP = Bootstrap()


def quantiles(replicates: Any, confidence: float) -> tuple[float, float]:
    """The middle `confidence` of the replicates."""
    low, high = np.quantile(np.asarray(replicates, np.float64), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def resampling(n: int, replicates: int, seed: int, different: int = 1) -> Tensor:
    """Bootstrap weights (replicates, n), float64: how often each of n images was drawn, in shares that sum to 1.

    Samples of fewer `different` images, which say nothing of pairs, are left out and others drawn in their place.
    """
    check_bootstrap(replicates, 0.95)
    return _resampling(n, replicates, seed, different).clone()


@lru_cache(maxsize=8)
def _resampling(n: int, replicates: int, seed: int, different: int) -> Tensor:
    """Kept, as a bench asks for the same weights for each figure of each plan."""
    rng, counts = np.random.Generator(np.random.Philox(key=seed)), []
    while len(counts) < replicates:
        drawn = np.bincount(rng.integers(0, n, n), minlength=n)
        if np.count_nonzero(drawn) >= min(different, n):
            counts.append(drawn)
    return torch.from_numpy(np.stack(counts) / n)


def check_bootstrap(replicates: int, confidence: float) -> None:
    """Raise `InvalidInput` for too few replicates or a confidence that is not a share."""
    if not 20 <= replicates <= 100_000:
        raise InvalidInput(f"replicates must lie in 20 to 100000, got {replicates}")
    if not 0.5 <= confidence < 1:
        raise InvalidInput(f"confidence must lie in [0.5, 1), such as 0.95, got {confidence}")


def figure_of(measure: str, value: float, replicates: Tensor, *, confidence: float, **facts: Any) -> Figure:
    """A `Figure` whose interval is the middle of `replicates` (R,)."""
    check_bootstrap(len(replicates), confidence)
    low, high = quantiles(replicates, confidence)
    return Figure(
        measure, float(value), low, high, confidence=confidence, replicates=tuple(replicates.tolist()), **facts
    )
