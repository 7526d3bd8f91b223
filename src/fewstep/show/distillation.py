"""Figure 6: three ways to a student of few steps: halving its steps, straightening its ways, matching the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from fewstep.core.errors import InvalidInput
from fewstep.denoise.convert import Network
from fewstep.recipes.threads import limited
from fewstep.show.halving import Halving, halving
from fewstep.show.mixture import Mixture
from fewstep.show.modes import Modes, modes
from fewstep.show.straightening import Straightening, straightening
from fewstep.show.students import MEASURED, Setting, noise_of
from fewstep.training.draws import key_of

MOST_STEPS = 100_000
DRAWN = 250
"""Points that a panel of drawings has."""


@dataclass(frozen=True)
class Lengths:
    """Training steps.

    Attributes:
        beginning: of the student that answers as the teacher, from which the others begin.
        rounds: of progressive distillation, from 8 steps to 4, 2 and 1.
        matching: of all networks, the fake score's as well; the student has one in `modes.RATIO` of them.
    """

    beginning: int
    rounds: tuple[int, int, int]
    reflow: int
    regression: int
    matching: int

    @staticmethod
    def of(steps: int) -> Lengths:
        """Those that belong to a beginning of so many steps. Raises `InvalidInput` outside 20 to 100,000."""
        if isinstance(steps, bool) or not isinstance(steps, int) or not 20 <= steps <= MOST_STEPS:
            raise InvalidInput(f"training steps must be a whole number from 20 to {MOST_STEPS:,}, got {steps!r}")
        part = steps // 5
        return Lengths(steps, (2 * part, 2 * part, 3 * part), 4 * part, 2 * part, 5 * part)


class Distillation(NamedTuple):
    """The three, on one mixture, from the same noise and the same beginning."""

    mixture: Mixture
    lengths: Lengths
    noises: int
    seed: int
    halving: Halving
    straightening: Straightening
    modes: Modes

    @property
    def finding(self) -> str:
        """What the numbers say, in a sentence."""
        words = "; ".join((self.halving.finding, self.straightening.finding, self.modes.finding))
        return words[0].upper() + words[1:]

    @property
    def students(self) -> dict[str, Network]:
        """The networks that were trained, by name."""
        rounds = {f"progressive-{steps}": network for steps, network in self.halving.networks.items()}
        return {**rounds, "reflow": self.straightening.network, **self.modes.networks}

    def document(self) -> dict[str, Any]:
        """All numbers as JSON-serialisable data; the students are apart, see `students.weights_file`."""
        return {
            "figure": "distillation",
            "finding": self.finding,
            "noises": self.noises,
            "seed": self.seed,
            "measured": MEASURED,
            "mixture": self.mixture.described(),
            "training": asdict(self.lengths),
            "progressive": self.halving.document(),
            "reflow": [ways.document() for ways in self.straightening.ways],
            "modes": [drawn.document() for drawn in self.modes.drawn],
        }

    def table(self) -> tuple[list[str], list[list[Any]]]:
        """A measured figure a line."""
        rows: list[list[Any]] = []
        for each in self.halving.rounds:
            name = f"{each.steps} step{'s' * (each.steps > 1)}"
            rows += [["progressive", name, "error", each.error], ["progressive", name, "untrained", each.untrained]]
        for ways in self.straightening.ways:
            rows += [
                ["reflow", ways.name, "straightness", ways.straightness],
                ["reflow", ways.name, "error", ways.error],
            ]
        for drawn in self.modes.drawn:
            shares = [["modes", drawn.name, f"share {k}", share] for k, share in enumerate(drawn.shares.tolist())]
            rows += [
                ["modes", drawn.name, "between", drawn.between],
                ["modes", drawn.name, "lost", drawn.lost],
                *shares,
            ]
        return ["part", "what", "figure", "value"], rows


def distillation(
    mixture: Mixture,
    *,
    steps: int = 1500,
    count: int = 10,
    seed: int = 0,
    on_part: Callable[[int, int], None] = lambda done, of: None,
) -> Distillation:
    """Train and measure all students.

    Args:
        steps: of training for the beginning; the others have theirs in proportion, see `Lengths`.
        count: paths that are drawn, from noises that no training saw.
        on_part: told how many of four parts are done.

    Raises `InvalidInput` for a mixture that is not in the plane, and for other numbers of steps than 20 to 100,000.
    """
    lengths, setting = Lengths.of(steps), Setting.of(mixture, seed)
    noise = noise_of(MEASURED, key_of(seed, "measured") >> 1)
    with limited(1):  # sums over threads would round otherwise
        beginning = setting.beginning(lengths.beginning)
        on_part(1, 4)
        halved = halving(setting, beginning, lengths.rounds, noise, count)
        on_part(2, 4)
        straightened = straightening(setting, beginning, lengths.reflow, noise, count)
        on_part(3, 4)
        matched = modes(setting, beginning, (lengths.regression, lengths.matching), noise, DRAWN)
        on_part(4, 4)
    return Distillation(mixture, lengths, count, seed, halved, straightened, matched)
