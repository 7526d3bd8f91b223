"""What was tried of a model, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fewstep.measure.figure import Figure


@dataclass(frozen=True)
class Trial:
    """One technique on top of what was kept before.

    Attributes:
        technique: its name; `on`: what the model had already.
        kept: whether it stays; `why` says so or why not.
        speed: times faster than what the model had already; None where it could not be tried.
        loss: the share by which the error grows against the model as it is, in all; None where nobody looked.
        adherence: the share of prompts that is drawn right less often, in all.
        pays: images after which compiling has paid; None where nothing was compiled.
    """

    technique: str
    on: str
    kept: bool
    why: str
    speed: Figure | None = None
    loss: Figure | None = None
    adherence: Figure | None = None
    pays: int | None = None

    def to_json(self) -> dict[str, Any]:
        """JSON values, figures without their replicates."""
        figures = {name: figure_json(getattr(self, name)) for name in ("speed", "loss", "adherence")}
        own = {name: getattr(self, name) for name in ("technique", "on", "kept", "why", "pays")}
        return own | figures


def percent(share: float) -> str:
    """A share in per cent, and nothing of either sign as 0."""
    return f"{round(share, 4) + 0.0:.2%}"


def of_prompts(value: float, high: float, count: int) -> str:
    """What a share of prompts lost says, with the most that it may be."""
    lost = "no fewer" if value <= 0 else f"{percent(value)} fewer"
    return f"{lost} of {count:,} prompts are drawn right, at most {percent(max(high, 0.0))} fewer"


def figure_json(figure: Figure | None) -> Mapping[str, Any] | None:
    """A figure with its interval."""
    if figure is None:
        return None
    return {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
