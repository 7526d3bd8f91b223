"""Which rows no other beats: less error at no more evaluations, or at no more seconds.

Rows are compared only with those that drew the same images to the same converged solutions: the same guidance, noise,
conditions and device.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from fewstep.benchmark.row import Run


class Group(NamedTuple):
    """What rows share that may be compared."""

    guidance: float | None
    images: int
    seed: int
    conditions: str
    device: str

    def __str__(self) -> str:
        scale = "" if self.guidance is None else f"guidance {self.guidance:g}, "
        return f"{scale}{self.images} images, seed {self.seed}, {self.device}"


class Front(NamedTuple):
    """Keys of the rows that none beats in evaluations, and of those that none beats in seconds."""

    evaluations: frozenset[str]
    seconds: frozenset[str]

    def __contains__(self, key: object) -> bool:
        return key in self.evaluations or key in self.seconds


def group_of(run: Run) -> Group:
    """What a row is compared within."""
    return Group(run.guidance, run.images, run.seed, run.conditions, run.machine.device)


def groups(runs: Iterable[Run]) -> Mapping[Group, list[Run]]:
    """The rows by their groups, in order."""
    found: dict[Group, list[Run]] = {}
    for run in runs:
        found.setdefault(group_of(run), []).append(run)
    return found


def ranked(runs: Iterable[Run]) -> list[Run]:
    """Those that have an error and lost nothing."""
    return [run for run in runs if "error" in run.figures and not run.lost]


def front_of(runs: Sequence[Run]) -> Front:
    """The rows of one group that no other beats.

    In seconds a row is beaten by less error where the other is not surely slower: their intervals meet.
    """
    rows = ranked(runs)

    def error(run: Run) -> float:
        return run.figures["error"].value

    def cheaper(a: Run, b: Run) -> bool:
        return (a.evaluations, error(a)) != (b.evaluations, error(b)) and (
            a.evaluations <= b.evaluations and error(a) <= error(b)
        )

    def quicker(a: Run, b: Run) -> bool:
        return error(a) < error(b) and a.seconds.low <= b.seconds.high

    return Front(_unbeaten(rows, cheaper), _unbeaten(rows, quicker))


def table(runs: Sequence[Run]) -> list[tuple[Group, list[Run], Front]]:
    """For each group the rows on its fronts, from few evaluations to many, and the fronts."""
    found = []
    for group, rows in groups(runs).items():
        front = front_of(rows)
        best = sorted(
            (run for run in rows if run.key in front), key=lambda r: (r.evaluations, r.figures["error"].value)
        )
        found.append((group, best, front))
    return found


def _unbeaten(rows: Sequence[Run], beats: Any) -> frozenset[str]:
    return frozenset(own.key for own in rows if not any(beats(other, own) for other in rows if other is not own))
