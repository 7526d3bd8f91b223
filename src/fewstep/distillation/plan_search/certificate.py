"""What the tuning of a student's plan found, as data: its own plan and the tuned one on noise that no search saw."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from fewstep.core.plan import Plan
from fewstep.distillation.judging.judge import Interval
from fewstep.distillation.judging.report import plain
from fewstep.distillation.plan_search.page import page_of
from fewstep.distillation.plan_search.trials import DISTANCE
from fewstep.files import write_whole
from fewstep.tuning.renoised import renoised_of

FORMAT = 1
OWN, TUNED, PLAIN = "its own plan", "the tuned plan", "its own times without fresh noise"


@dataclass(frozen=True)
class StudentPlan:
    """A plan on the held-out pictures.

    Attributes:
        times: of its rows; `fresh`: the shares of fresh noise that these lead to; `weights`: of the estimates of the
            data of all rows so far, by row.
        error: of the typical picture, or over all by "rmse"; None where errors say nothing.
        distance: None where a picture is lost.
    """

    who: str
    digest: str
    rows: int
    times: Sequence[float]
    fresh: Sequence[float]
    weights: Sequence[Sequence[float]]
    error: Interval | None
    distance: Interval | None

    @staticmethod
    def of(who: str, plan: Plan, error: Interval | None, distance: Interval | None) -> StudentPlan:
        """A plan with its figures."""
        found = renoised_of(plan)
        assert found is not None
        weights = [row[: i + 1] for i, row in enumerate(found.weights.tolist())]
        times, rows = [row.t for row in plan.rows], len(plan.rows)
        return StudentPlan(who, plan.digest, rows, times, found.fresh.tolist(), weights, error, distance)


@dataclass(frozen=True)
class StudentCertificate:
    """What is known of a student's tuned plan. `to_json` is the file.

    Attributes:
        plan: digest of the plan that was returned; `better`: whether it is another than the own one.
        model, teacher: name and digest of each; of the teacher the rows of its plan too.
        settings: what it was tuned for.
        objective: what judged; `measure`: the distance, and on what.
        compared: the plans on the held-out pictures, the own one first.
        gain: of the best plan that was found over the own one: how many times less error, or how much less distance;
            None where nothing was found that did better on the pictures to choose by.
        farther: its distance less that of the own plan, where errors judge.
        floor: the distance of the teacher itself to its pictures of other noise.
        images: how many were used for what.
        search: how many plans were `tried`, and whether the time `cut` that short.
        seconds: by stage.
        stopped: why it ended early, or "".
        notes: what else is to be said, a sentence each.
        pictures: PNG files of the first held-out pictures, by what drew them; the page shows them, the JSON has none.
    """

    plan: str
    better: bool
    rows: int
    model: Mapping[str, str]
    teacher: Mapping[str, Any]
    settings: Mapping[str, Any]
    schedule: str
    seed: int
    objective: str
    measure: str
    compared: Sequence[StudentPlan]
    gain: Interval | None
    farther: Interval | None
    floor: Interval | None
    images: Mapping[str, int]
    search: Mapping[str, Any]
    seconds: Mapping[str, float | None]
    stopped: str = ""
    notes: Sequence[str] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """In words."""
        tried = self.search["tried"]
        if self.gain is None:
            what = f"none of {tried} other plans did better on the pictures to choose by" if tried else self.untried
            return f"Keep its own plan: {what}"
        if self.objective == DISTANCE:
            found = f"{self.gain.value:.3g} less distance ({self.gain.low:.3g} to {self.gain.high:.3g})"
        else:
            what = "error of the typical picture" if self.objective == "psnr" else "error"
            found = f"{self.gain.value:.3g} times less {what} ({self.gain.low:.3g} to {self.gain.high:.3g})"
        where = f"than its own plan of {self.rows} rows, on held-out noise"
        if self.better:
            return f"The tuned plan has {found} {where}"
        if self.gain.low > 1:  # and its pictures in all are farther
            return f"Keep its own plan: the best that was found has {found} {where}, and surely more distance"
        return f"Keep its own plan: the best that was found has {found} {where}, which is not surely better"

    @property
    def untried(self) -> str:
        """Why no other plan was tried."""
        return f"no other was tried, as {self.stopped or 'there is nothing of it to search'}"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; figures that are not finite are null."""
        own = {name: value for name, value in asdict(self).items() if name != "pictures"}
        own |= {"compared": [plain(vars(one)) for one in self.compared]}
        for name in ("gain", "farther", "floor"):
            own[name] = getattr(self, name)
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "confidence": 0.95,
            **{name: plain(value) for name, value in own.items()},
            "fewstep": importlib.metadata.version("fewstep"),
            "torch": torch.__version__,
        }

    def save(self, path: str | os.PathLike[str]) -> tuple[Path, Path]:
        """Write the JSON to `path`, and the page beside it as .html; returns both paths."""
        file = Path(path)
        page = file.with_suffix(".html")
        document = self.to_json()
        write_whole(file, json.dumps(document, indent=2, allow_nan=False).encode())
        write_whole(page, page_of(document, self.pictures).encode())
        return file, page
