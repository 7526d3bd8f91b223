"""What a tuning found, as data: what was compared on held-out noise, the gain with its interval, and what it took."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.files import write_whole
from fewstep.tuning.problem import LEAST_ERROR

FORMAT = 1
DRAWS, LEVEL = 2000, 0.95
SHARES = (0.1, 0.5, 0.9, 0.98)


class Interval(NamedTuple):
    """A figure and the ends of its bootstrap interval, of `LEVEL` confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def error_interval(errors: Tensor, objective: str = "rmse", seed: int = 0) -> Interval:
    """The error of a plan from those of images (B,), see `fewstep.tuning.problem.overall`."""
    return _interval(lambda rows: _overall(rows, objective)[0], errors.numpy(force=True)[None], seed)


def gain(before: Tensor, after: Tensor, objective: str = "rmse", seed: int = 0) -> Interval:
    """How many times smaller the error is by `after` (B,) than by `before`, the same images of both; 0 where `after`
    lost an image.
    """

    def ratio(rows: np.ndarray) -> np.ndarray:
        worse, better = _overall(rows, objective)
        return np.where(np.isinf(better), 0.0, worse / np.maximum(better, 1e-150))

    return _interval(ratio, np.stack([before.numpy(force=True), after.numpy(force=True)]), seed)


def _overall(rows: np.ndarray, objective: str) -> np.ndarray:
    """`overall` over the last axis."""
    if objective == "psnr":
        return np.exp(np.log(np.maximum(rows, LEAST_ERROR)).mean(axis=-1) / 2)
    return np.sqrt(rows.mean(axis=-1))


def _interval(figure: Any, columns: np.ndarray, seed: int) -> Interval:
    """The percentile bootstrap over images (Efron & Tibshirani 1993, chapter 13)."""
    drawn = np.random.default_rng(seed).integers(columns.shape[1], size=(DRAWS, columns.shape[1]))
    with np.errstate(invalid="ignore"):  # of two infinite ones
        value = float(np.reshape(figure(columns), ()))
        ends = np.quantile(figure(columns[:, drawn]), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1).reshape(2)
    low, high = np.nan_to_num(ends, nan=np.inf, posinf=np.inf)
    return Interval(value, float(low), float(high))


@dataclass(frozen=True)
class Compared:
    """One plan on the held-out images. `kind`: default, untuned, searched or learned.

    `nfe` are its rows, `evaluations` those of the network for an image; a guided row has two.
    `rmse` and `typical` are the errors by the objectives "rmse" and "psnr". `quantiles`: the error (root mean square)
    that the given share of the images stays below. Where the last is many times the median, few images decide `rmse`:
    those whose path forks.
    """

    kind: str
    sampler: str
    grid: str
    grid_options: Mapping[str, Any]
    nfe: int
    digest: str
    evaluations: int
    rmse: Interval
    typical: Interval
    quantiles: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(kind: str, plan: Plan, errors: Tensor, evaluations: int | None = None) -> Compared:
        """From the errors (B,) of images; None evaluations are as many as rows."""
        recipe = plan.recipe
        options, each = dict(recipe.grid_options), errors.sqrt().numpy(force=True)
        quantiles = {f"{share:g}": float(np.quantile(each, share, method="nearest")) for share in SHARES}
        both = error_interval(errors), error_interval(errors, "psnr")
        cost = plan.nfe if evaluations is None else evaluations
        return Compared(kind, recipe.sampler, recipe.grid, options, plan.nfe, plan.digest, cost, *both, quantiles)

    def error(self, objective: str) -> Interval:
        """The one that is judged by."""
        return self.typical if objective == "psnr" else self.rmse


@dataclass(frozen=True)
class Certificate:
    """What is known of a tuned plan. `to_json` is the file.

    Attributes:
        plan: digest of the plan that was returned; `kind` says where it came from.
        model, settings: what it was tuned for.
        compared: the plans on the held-out images, the best first.
        over_default, over_untuned: how many times smaller the error of the returned plan is.
        elsewhere: the same over the best untuned one under other settings, by name.
        teacher: the reference: its sampler, NFE and own error.
        images: how many were used for what.
        search: how many plans were tried, and on how many images.
        learning: iterations, and after how many the best came; None where nothing was learned.
        seconds: by stage; `total`, and `twice`, until a plan had half the error of the best untuned one, None where
            none had.
        stopped: why it ended early or left out what was asked for, or "".
        factors: of guidance by row, where the plan has them.
        objective: what the errors, gains and the teacher's error are, "rmse" or "psnr".
    """

    plan: str
    kind: str
    nfe: int
    model: Mapping[str, str]
    settings: Mapping[str, Any]
    schedule: str
    seed: int
    compared: Sequence[Compared]
    over_default: Interval
    over_untuned: Interval
    elsewhere: Mapping[str, Interval]
    teacher: Mapping[str, Any]
    images: Mapping[str, int]
    search: Mapping[str, Any]
    learning: Mapping[str, int] | None
    seconds: Mapping[str, float | None]
    stopped: str = ""
    factors: Sequence[float] | None = None
    objective: str = "rmse"

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.kind == "default":
            return (
                f"Nothing beats the default at {self.nfe} evaluations beyond noise on held-out noise, so the default "
                "is returned."
            )
        what = "error" if self.objective == "rmse" else "error of the typical image"
        times = f"{self.over_default.value:.3g} times less {what} than the default"
        untuned = f"{self.over_untuned.value:.3g} times less than the best untuned sampler"
        where = f"At {self.nfe} evaluations the {self.kind} plan"
        if self.factors and 0 in self.factors:
            guided = sum(r != 0 for r in self.factors)
            where = (
                f"At the cost of {self.nfe} guided rows, {2 * self.nfe} evaluations an image, the {self.kind} plan of "
                f"{len(self.factors)} rows, {guided} of them guided,"
            )
        return (
            f"{where} has {times} ({self.over_default.low:.3g} to "
            f"{self.over_default.high:.3g}) and {untuned} ({self.over_untuned.low:.3g} to "
            f"{self.over_untuned.high:.3g}), on held-out noise."
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; figures that are not finite are null."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "confidence": LEVEL,
            **_plain(asdict(self)),
            "fewstep": importlib.metadata.version("fewstep"),
            "torch": torch.__version__,
            "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        }

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write the JSON to `path`, and the page beside it as .html; returns both paths."""
        from fewstep.tuning.page import page_of

        file = Path(path)
        text = json.dumps(self.to_json(), indent=2, allow_nan=False)
        page = file.with_suffix(".html")
        write_whole(file, text.encode())
        write_whole(page, page_of(self.to_json()).encode())
        return file, page


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
