"""How many images a tuning uses for what."""

from __future__ import annotations

from dataclasses import dataclass

from fewstep.core.errors import InvalidInput

TRAIN, VALIDATION, HELD_OUT = 0, 2**28, 2**29
"""The numbers of the images of each part begin here, so that parts never meet whatever their sizes."""
LEAST_IMAGES, MOST_IMAGES = 16, 4096


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
            raise InvalidInput(f"pilot, path and the increasing rungs are of the {self.train} training images: {self}")

    @staticmethod
    def of(train: int) -> Sizes:
        """The other sizes that go well with so many training images, 8 or more."""
        rungs = tuple(sorted({min(n, train) for n in (8, 32, 128)}))
        return Sizes(
            train, max(8, train // 2), max(16, train), min(16, train), max(min(64, train), min(256, train // 4)), rungs
        )

    @staticmethod
    def affordable(seconds: float, each: float) -> Sizes:
        """With the most training images, a power of two, whose converged solutions take at most `seconds`, `each` for
        one image.
        """
        train = MOST_IMAGES
        while train > LEAST_IMAGES and each * Sizes.of(train).solved > seconds:
            train //= 2
        return Sizes.of(train)

    @property
    def solved(self) -> int:
        """How many converged solutions are needed."""
        return self.train + self.validation + self.held_out
