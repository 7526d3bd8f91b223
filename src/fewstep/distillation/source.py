"""What a student learns from and begins as, and how it is measured."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fewstep import data as datasets
from fewstep.core.errors import InvalidInput
from fewstep.distillation.judging.health import Checks

USUAL_COUNT = 8192


@dataclass(frozen=True)
class Source:
    """What a student learns from: what its teacher is asked to draw, once, or real pictures.

    Attributes:
        subjects: prompts or labels in turn, of what the teacher draws; None is every class, or what the data show.
        guidance: the scale, which the student has inside afterwards; None is what the teacher recommends.
        steps: of the teacher's own sampler; None is 20, or the plan of its own where the teacher is a student itself.
        count: pictures to train on; None is 8,192, or none where there are data. `held_out`: pictures for the report,
            and as many to measure distances to.
        begin: a model of the same network whose weights the student begins with, such as another student of the
            teacher; None is the teacher.
        data: real pictures to learn from in place of the teacher's, with their labels or captions, as
            `fewstep.data.open_data` names them, for methods that take them; what is held out the teacher draws all the
            same. `mirror`: whether each is learned with left and right exchanged too.
    """

    subjects: Sequence[Any] | None = None
    guidance: float | None = None
    steps: int | None = None
    count: int | None = None
    held_out: int = 512
    begin: str | os.PathLike[str] | None = None
    data: str | os.PathLike[str] | datasets.Source | None = None
    mirror: bool = False

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("count", 1), ("held_out", 16)):
            value = getattr(self, name)
            if (type(value) is not int or value < least) and (value is not None or name == "held_out"):
                raise InvalidInput(f"{name} must be a whole number of at least {least}, got {value!r}")
        if self.data is not None and self.count is not None:
            raise InvalidInput(
                f"with data the teacher draws no pictures to learn from, got count={self.count} of them (--pairs): "
                "leave it out"
            )
        if type(self.mirror) is not bool or (self.mirror and self.data is None):
            where = "" if self.data is not None else " without data"
            raise InvalidInput(f"mirror is True or False, and of data alone, got {self.mirror!r}{where}")

    @property
    def drawn(self) -> int:
        """How many pictures the teacher draws to train on."""
        if self.data is not None:
            return 0
        return USUAL_COUNT if self.count is None else self.count


@dataclass(frozen=True)
class Measuring:
    """How a student is measured, while it is trained and in the end.

    Attributes:
        checks: the looks while it is trained.
        clip: a folder with CLIP's weights, on whose features distances are measured; None takes those of the shipped
            classifier for digits, and thumbnails for other pictures.
        tune: seconds in which a plan of the teacher's network is tuned, to stand beside the student at as many
            evaluations; 0 tunes none. Plans that come with the teacher stand there anyway.
    """

    checks: Checks = field(default_factory=Checks)
    clip: str | os.PathLike[str] | None = None
    tune: float = 0.0

    def __post_init__(self) -> None:
        if not (isinstance(self.tune, int | float) and math.isfinite(self.tune) and self.tune >= 0):
            raise InvalidInput(f"tune is a number of seconds of at least 0, got {self.tune!r}")
