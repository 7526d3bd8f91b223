"""The report of an optimisation, as data: all that was tried, what was kept, and what the whole is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewstep.measure.figure import Figure
from fewstep.optimization.page import page_of
from fewstep.optimization.trial import Trial, figure_json, of_prompts, percent
from fewstep.run.machine import Machine
from fewstep.variants import Variant

FORMAT = 1
REPORT_FILES = ("report.json", "report.html")


@dataclass(frozen=True)
class Total:
    """What the whole variant is worth at so many images at once: times faster, and the seconds of a drawing."""

    batch: int
    speed: Figure
    before: float
    after: float

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        seconds = {"before": self.before, "after": self.after}
        return {"batch": self.batch, "speed": figure_json(self.speed), "seconds": seconds}


@dataclass(frozen=True)
class Report:
    """What an optimisation found.

    Attributes:
        model: name and digests; `plan`: by which all drew; `machine`: where.
        most_loss: that was allowed; `loss` and `adherence`: of the whole variant, None where nothing was kept;
            `images`: that these rest on.
        seconds: that all took; `cut`: whether the time was over before all was tried.
    """

    model: Mapping[str, Any]
    variant: Variant
    machine: Machine
    plan: Mapping[str, Any]
    most_loss: float
    trials: tuple[Trial, ...]
    totals: tuple[Total, ...]
    loss: Figure | None
    adherence: Figure | None
    images: int
    seconds: float
    cut: bool

    @property
    def verdict(self) -> str:
        """In a sentence."""
        if self.loss is None:
            return "Nothing that was tried is surely faster and loses little enough: keep the model as it is."
        faster = " and ".join(
            f"{one.speed.value:.2f} times ({one.speed.low:.2f} to {one.speed.high:.2f}) at batch {one.batch}"
            for one in self.totals
        )
        loss = self.loss
        lost = f"the error grows by {percent(loss.value)} ({percent(loss.low)} to {percent(loss.high)})"
        points = self.adherence
        if points is not None:
            lost = f"{of_prompts(points.value, points.high, points.n)}, and {lost}"
        return f"Faster by {faster}: {self.variant}; {lost}."

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "format": FORMAT,
            "verdict": self.verdict,
            "model": dict(self.model),
            "variant": self.variant.to_json(),
            "machine": self.machine._asdict(),
            "plan": dict(self.plan),
            "most_loss": self.most_loss,
            "images": self.images,
            "loss": figure_json(self.loss),
            "adherence": figure_json(self.adherence),
            "totals": [one.to_json() for one in self.totals],
            "trials": [one.to_json() for one in self.trials],
            "seconds": self.seconds,
            "cut": self.cut,
        }

    @property
    def files(self) -> dict[str, bytes]:
        """As JSON and as a page, by the names of their files."""
        document = self.to_json()
        text = json.dumps(document, indent=1) + "\n"
        return dict(zip(REPORT_FILES, (text.encode(), page_of(document).encode()), strict=True))
