"""What a run writes down as it goes: a line of JSON now and then, always, and whoever else is told the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from fewstep.files import read_bounded, write_whole

MOST_LOG = 1 << 30


class Logger(Protocol):
    """Where figures and pictures of a run go beside its own log."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Some figures after so many steps, by names such as "loss/student"."""
        ...

    def pictures(self, step: int, name: str, images: Tensor) -> None:
        """(n, c, h, w) in [0, 1], on the host."""
        ...

    def close(self) -> None:
        """The sitting is over."""
        ...


class Taken(NamedTuple):
    """What a step found: its losses by role, figures of the method by name, and the roles that are moved by them."""

    losses: Mapping[str, float]
    figures: Mapping[str, float]
    moved: frozenset[str] = frozenset()


class Log:
    """Lines of JSON, each with the means since the last one; those after the step to go on from are dropped."""

    def __init__(self, path: Path, step: int, loggers: Sequence[Logger] = ()) -> None:
        self.path, self.loggers, self.recent = path, loggers, list[Taken]()
        lines = read_bounded(path, MOST_LOG).splitlines(keepends=True) if path.exists() else []
        write_whole(path, b"".join(line for line in lines if _is_before(line, step)))

    def add(self, taken: Taken) -> None:
        """Take in a step."""
        self.recent.append(taken)

    def line(self, step: int, rate: float, seconds: float, speed: float) -> dict[str, float]:
        """Write the means since the last line, and return those of the losses.

        Args:
            seconds: of all steps so far; `speed`: images a second.
        """
        losses = means([taken.losses for taken in self.recent])
        figures = means([taken.figures for taken in self.recent])
        self.recent = []
        facts = {"step": step, "loss": losses, "rate": rate, "seconds": round(seconds, 2)}
        self.write({**facts, "images_per_second": round(speed, 2), **({"figures": figures} if figures else {})})
        flat = {f"loss/{role}": value for role, value in losses.items()} | {
            f"figures/{n}": v for n, v in figures.items()
        }
        self.tell(step, {**flat, "rate": rate, "images_per_second": speed})
        return losses

    def write(self, facts: Mapping[str, Any]) -> None:
        """Add a line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")

    def saw(self, step: int, figures: Mapping[str, float], pictures: Mapping[str, Tensor]) -> None:
        """What a look found."""
        if figures:
            self.write({"step": step, "seen": dict(figures)})
            self.tell(step, figures)
        for logger in self.loggers:
            for name, images in pictures.items():
                logger.pictures(step, name, images)

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Pass figures on to the loggers."""
        for logger in self.loggers:
            logger.scalars(step, values)


def means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each name over those that have it."""
    values: dict[str, list[float]] = {}
    for one in found:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    return {name: sum(values[name]) / len(values[name]) for name in sorted(values)}


def _is_before(line: bytes, step: int) -> bool:
    try:
        return line.endswith(b"\n") and json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
