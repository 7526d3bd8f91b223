"""Which plans no other beats: less error at no more network evaluations, or at no more seconds.

Plans are compared only with those that drew the same images to the same converged solutions: the same guidance, noise,
conditions and device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from fewstep.benchmark.measured import Measured


class ComparisonGroup(NamedTuple):
    """What measurements share that may be compared."""

    guidance: float | None
    images: int
    seed: int
    conditions: str
    device: str

    def __str__(self) -> str:
        scale = "" if self.guidance is None else f"guidance {self.guidance:g}, "
        return f"{scale}{self.images} images, seed {self.seed}, {self.device}"


class Front(NamedTuple):
    """Keys of what none beats in network evaluations, and of what none beats in seconds."""

    nfe: frozenset[str]
    seconds: frozenset[str]

    def __contains__(self, key: object) -> bool:
        return key in self.nfe or key in self.seconds


def group_of(one: Measured) -> ComparisonGroup:
    """What a measurement is compared within."""
    return ComparisonGroup(one.guidance, one.images, one.seed, one.conditions, one.machine.device)


def groups(results: Iterable[Measured]) -> Mapping[ComparisonGroup, list[Measured]]:
    """The measurements by their groups, in order."""
    found: dict[ComparisonGroup, list[Measured]] = {}
    for one in results:
        found.setdefault(group_of(one), []).append(one)
    return found


def ranked(results: Iterable[Measured]) -> list[Measured]:
    """Those that have an error and lost nothing."""
    return [one for one in results if "error" in one.figures and not one.lost]


def error_of(one: Measured) -> float:
    """Its error, of one that is ranked."""
    return one.figures["error"].value


def front_of(results: Sequence[Measured]) -> Front:
    """What no other of one group beats.

    In seconds a plan is beaten by less error where the other is not surely slower: their intervals meet.
    """
    known = ranked(results)

    def cheaper(a: Measured, b: Measured) -> bool:
        differ = (a.nfe, error_of(a)) != (b.nfe, error_of(b))
        return differ and a.nfe <= b.nfe and error_of(a) <= error_of(b)

    def quicker(a: Measured, b: Measured) -> bool:
        return error_of(a) < error_of(b) and a.seconds.low <= b.seconds.high

    return Front(_unbeaten(known, cheaper), _unbeaten(known, quicker))


def best_of(results: Sequence[Measured], front: Front) -> list[Measured]:
    """Those on the fronts, from few evaluations to many."""
    return sorted((one for one in results if one.key in front), key=lambda one: (one.nfe, error_of(one)))


def table(results: Sequence[Measured]) -> list[tuple[ComparisonGroup, list[Measured], Front]]:
    """For each group what is on its fronts, from few evaluations to many, and the fronts."""
    found = []
    for group, alike in groups(results).items():
        front = front_of(alike)
        found.append((group, best_of(alike, front), front))
    return found


def _unbeaten(known: Sequence[Measured], beats: Callable[[Measured, Measured], bool]) -> frozenset[str]:
    return frozenset(own.key for own in known if not any(beats(other, own) for other in known if other is not own))
