"""What a tuning found, as data: what was compared on held-out noise, the gain with its interval, and what it took."""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.files import write_whole
from fewstep.measure.distance import over_images
from fewstep.tuning.page import page_of

FORMAT = 3
DRAWS, LEVEL = 2000, 0.95
SHARES = (0.1, 0.5, 0.9, 0.98)


class ConfidenceInterval(NamedTuple):
    """A figure and the ends of its bootstrap interval, of `LEVEL` confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def error_interval(errors: Tensor, objective: str = "rmse") -> ConfidenceInterval:
    """The error of a plan from the mean squared ones of images (B,), see `fewstep.measure.distance`."""
    return _interval(lambda found: found[0], errors[None], objective)


def gain(before: Tensor, after: Tensor, objective: str = "rmse") -> ConfidenceInterval:
    """How many times smaller the error is by `after` (B,) than by `before`, (B,) or (plans, B), the same images of all;
    0 where `after` lost an image.

    Of several plans it is the best. Which one that is, is chosen in each draw of the bootstrap anew: so the interval
    knows that the best one on these images is partly so by luck.
    """

    def ratio(errors: Tensor) -> Tensor:
        best, own = errors[:-1].amin(dim=0), errors[-1]
        return torch.where(own.isinf(), 0.0, best / own.clamp(min=1e-150))

    return _interval(ratio, torch.vstack([before, after]), objective)


def _interval(figure: Callable[[Tensor], Tensor], columns: Tensor, objective: str) -> ConfidenceInterval:
    """The percentile bootstrap over images (Efron & Tibshirani 1993, chapter 13) of a figure of the errors of plans,
    from those (plans, B) of their images.
    """
    columns, images = columns.cpu(), columns.shape[1]
    drawn = torch.from_numpy(np.random.default_rng(0).integers(images, size=(DRAWS, images)))
    again = figure(torch.stack([over_images(column[drawn], objective) for column in columns])).numpy()
    with np.errstate(invalid="ignore"):  # of two infinite ones
        ends = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    low, high = np.nan_to_num(ends, nan=np.inf, posinf=np.inf)
    return ConfidenceInterval(float(figure(over_images(columns, objective))), float(low), float(high))


@dataclass(frozen=True)
class Compared:
    """One plan on the held-out images. `kind`: default, untuned, searched or learned.

    `nfe` are the evaluations of the network for an image; a guided row takes two. `images`: the first so many of the
    held-out ones; rivals that are far behind on a few are not measured on the others.
    `rmse` and `typical` are the errors by the objectives "rmse" and "psnr". `quantiles`: the error (root mean square)
    that the given share of the images stays below. Where the last is many times the median, few images decide `rmse`:
    those whose path forks.
    """

    kind: str
    sampler: str
    grid: str
    grid_options: Mapping[str, Any]
    rows: int
    nfe: float
    digest: str
    rmse: ConfidenceInterval
    typical: ConfidenceInterval
    images: int
    quantiles: Mapping[str, float] = field(default_factory=dict)

    @staticmethod
    def of(kind: str, plan: Plan, errors: Tensor, nfe: float) -> Compared:
        """From the mean squared errors (B,) of images."""
        recipe, each = plan.recipe, errors.sqrt().numpy(force=True)
        return Compared(
            kind=kind,
            sampler=recipe.sampler,
            grid=recipe.grid,
            grid_options=dict(recipe.grid_options),
            rows=len(plan.rows),
            nfe=nfe,
            digest=plan.digest,
            rmse=error_interval(errors),
            typical=error_interval(errors, "psnr"),
            images=len(errors),
            quantiles={f"{share:g}": float(np.quantile(each, share, method="nearest")) for share in SHARES},
        )

    def error(self, objective: str) -> ConfidenceInterval:
        """The one that is judged by."""
        return self.typical if objective == "psnr" else self.rmse


@dataclass(frozen=True)
class Certificate:
    """What is known of a tuned plan. `to_json` is the file.

    Attributes:
        plan: digest of the plan that was returned; `kind` says where it came from.
        rows: that were tuned for, and `nfe` evaluations of the network for an image, which the plan spends in other
            rows where it guides some alone.
        model, settings: what it was tuned for.
        compared: the plans on the held-out images, the best first.
        over_default, over_untuned: how many times smaller the error of the returned plan is.
        rival: the untuned one that is meant, "SAMPLER on GRID".
        rivals: how many untuned ones were `measured` on the held-out images, how many were `ranked` on training images,
            and the names of those `missing` that there was no time for: with any, nothing is said of the best.
        elsewhere: the same over the best untuned one under other settings, by name.
        teacher: the plan that gave the converged solutions: its sampler, grid, rows and own error.
        images: how many were used for what.
        search: how many plans were tried, and on how many images.
        learning: iterations, and after how many the best came; None where nothing was learned.
        seconds: by stage; `total`, and `twice`, until a plan had half the error of the best untuned one, None where
            none had.
        stopped: why it ended early or left out what was asked for, or "".
        factors: of guidance by row, where the plan has them.
        objective: what the errors, gains and the teacher's error are, "rmse" or "psnr".
        pictures: PNG files of the first held-out images, by what drew them; the page shows them, the JSON has none.
    """

    plan: str
    kind: str
    rows: int
    nfe: float
    model: Mapping[str, str]
    settings: Mapping[str, Any]
    schedule: str
    seed: int
    compared: Sequence[Compared]
    over_default: ConfidenceInterval
    over_untuned: ConfidenceInterval
    rival: str
    rivals: Mapping[str, Any]
    elsewhere: Mapping[str, ConfidenceInterval]
    teacher: Mapping[str, Any]
    images: Mapping[str, int]
    search: Mapping[str, Any]
    learning: Mapping[str, int] | None
    seconds: Mapping[str, float | None]
    stopped: str = ""
    factors: Sequence[float] | None = None
    objective: str = "rmse"
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.kind == "default":
            return (
                f"Nothing beats the default at {self.rows} rows beyond noise on held-out noise, so the default is "
                "returned."
            )
        what = "error" if self.objective == "rmse" else "error of the typical image"
        where = f"At {self.rows} rows the {self.kind} plan"
        if self.factors and 0 in self.factors:
            guided = sum(r != 0 for r in self.factors)
            where = (
                f"At the cost of {self.rows} guided rows, {self.nfe:g} evaluations an image, the {self.kind} plan of "
                f"{len(self.factors)} rows, {guided} of them guided,"
            )
        return (
            f"{where} has {self.over_default.value:.3g} times less {what} than the default "
            f"({self.over_default.low:.3g} to {self.over_default.high:.3g}) and {self.over_untuned.value:.3g} times "
            f"less ({self.over_untuned.low:.3g} to {self.over_untuned.high:.3g}) than {self.opposed}, on held-out "
            "noise."
        )

    @property
    def opposed(self) -> str:
        """The untuned sampler that the plan is compared with, and among how many it was found."""
        measured, missing = self.rivals["measured"], self.rivals["missing"]
        if not missing:
            return f"the best of {measured} strong untuned samplers, {self.rival}"
        which = "the only untuned sampler" if measured == 1 else f"the best of the {measured} untuned samplers"
        return (
            f"{self.rival}, {which} that there was time to measure (not measured: {', '.join(missing)}; nothing is "
            "claimed about the best)"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; figures that are not finite are null."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "confidence": LEVEL,
            **_plain({name: value for name, value in asdict(self).items() if name != "pictures"}),
            "fewstep": importlib.metadata.version("fewstep"),
            "torch": torch.__version__,
            "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        }

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write the JSON to `path`, and the page beside it as .html; returns both paths."""
        file = Path(path)
        text = json.dumps(self.to_json(), indent=2, allow_nan=False)
        page = file.with_suffix(".html")
        write_whole(file, text.encode())
        write_whole(page, page_of(self.to_json(), self.pictures).encode())
        return file, page


def _plain(value: Any) -> Any:
    if isinstance(value, ConfidenceInterval):
        return _plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
