"""What is rarely chosen of a tuning, and how many images it uses for what."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from fewstep.core.errors import InvalidInput

TRAIN, VALIDATION, HELD_OUT = 0, 2**28, 2**29
"""The numbers of the images of each part begin here, so that parts never meet whatever their sizes."""
LEAST_IMAGES, HELD, MOST_IMAGES = 16, 256, 4096


@dataclass(frozen=True)
class Sizes:
    """How many images are used for what; `rungs`, `pilot` and `path` are of the training images."""

    train: int = 256
    validation: int = 128
    held_out: int = 256
    pilot: int = 16
    path: int = 64
    rungs: tuple[int, ...] = (8, 32, 128)

    def __post_init__(self) -> None:
        counts = (self.train, self.validation, self.held_out, self.pilot, self.path, *self.rungs)
        if not all(type(n) is int and n >= 2 for n in counts) or not self.rungs:
            raise InvalidInput(f"sizes are whole numbers of at least 2, with a rung at least, got {self}")
        if max(self.pilot, self.path, *self.rungs) > self.train or list(self.rungs) != sorted(self.rungs):
            raise InvalidInput(
                f"pilot, path and rungs, which increase, are at most the {self.train} training images, got {self}"
            )

    @staticmethod
    def of(train: int) -> Sizes:
        """The other sizes that go well with so many training images, 8 or more."""
        return Sizes(
            train,
            validation=max(8, train // 2),
            held_out=max(16, train),
            pilot=min(16, train),
            path=max(min(64, train), min(256, train // 4)),
            rungs=tuple(sorted({min(n, train) for n in (8, 32, 128)})),
        )

    @staticmethod
    def affordable(seconds: float, each: float, judging: float = 0.0) -> Sizes:
        """What fits: 60% of the `seconds` for up to `HELD` held-out images, whose converged solutions take `each` and
        which all rivals draw in `judging` more; and in the others the most training images, a power of two. Where
        more train, as many are held out.
        """
        held_out = HELD
        while held_out > LEAST_IMAGES and held_out * (each + judging) > 0.6 * seconds:
            held_out //= 2
        train = MOST_IMAGES
        while train > LEAST_IMAGES and (each * 1.5 + judging * (train > held_out)) * train > 0.4 * seconds:
            train //= 2
        own = Sizes.of(train)
        return replace(own, held_out=held_out if held_out < HELD else max(HELD, train))

    @property
    def solved(self) -> int:
        """How many converged solutions are needed."""
        return self.train + self.validation + self.held_out


@dataclass(frozen=True)
class TuningSettings:
    """How a plan is tuned.

    Attributes:
        seconds: about how long it may take. With the same sizes, seed and iterations, and time for all of them, the
            same plan comes out.
        iterations: of learning, at most.
        samplers: to search among; None is every one that draws no noise.
        sizes: how many images are used; None takes as many as the time allows.
        factors: under classifier-free guidance of a constant scale, learn by how much each row takes it further or
            less far (`fewstep.Plan`); the converged solution stays that of the constant scale.
        interval: guide some rows alone, so that there are more of them at the cost of the same evaluations
            (`fewstep.tuning.intervals`), where that is nearer.
        objective: "psnr", the error of the typical image, or "rmse", that over all images, which a few whose paths fork
            decide; None is the problem's, "psnr".
        prompts: a file with a prompt a line, for a pipeline that takes prompts; a quarter of them is held out.
        batch: images that the network sees at once; None is the problem's, 64.
        seed: of the noise; None is the problem's, 0.
        clock: in seconds.
    """

    seconds: float = 120.0
    iterations: int = 1500
    samplers: Sequence[str] | None = None
    sizes: Sizes | None = None
    factors: bool = True
    interval: bool = False
    objective: str | None = None
    prompts: str | os.PathLike[str] | None = None
    batch: int | None = None
    seed: int | None = None
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        if not self.seconds > 0 or type(self.iterations) is not int or self.iterations < 0:
            raise InvalidInput(
                f"seconds must be above 0 and iterations at least 0, got {self.seconds!r} and {self.iterations!r}"
            )
