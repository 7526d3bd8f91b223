"""Real pictures for a student to learn from, in the place of those that its teacher draws.

They come with their labels or captions, which the student, its teacher and a discriminator are told. They are fitted to
the model, and latents encoded once and kept, as for training on data (`fewstep.training.examples`). A student that sees
the data can come nearer to them than its teacher is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.distillation.pictures.teacher import Teacher
from fewstep.drawing import Guidance
from fewstep.training import Batch, Examples, Processes, examples_of
from fewstep.training.examples import Conditions, blank
from fewstep.training.order import epoch_order

SEED = 0
"""Of the order in which pictures are taken to judge by."""


@dataclass(frozen=True, eq=False)
class Real:
    """Real pictures as a teacher's network meets them; data for `fewstep.training`, as `Pairs` are.

    Attributes:
        pictures: in pixels.
        examples: as the network meets them; noise in the place of latents until they are `encoded`.
    """

    teacher: Teacher
    pictures: Examples
    examples: Examples

    @staticmethod
    def of(pictures: Examples, teacher: Teacher) -> Real:
        """Pictures under the teacher's guidance."""
        conditions = Conditions(teacher.pipe, Guidance(teacher.guidance))
        own = replace(pictures, conditions=conditions)
        return Real(teacher, own, blank(own))

    def encoded(
        self,
        folder: Path,
        watch: Callable[[int, int], None] = lambda done, of: None,
        processes: Processes | None = None,
    ) -> Real:
        """The same, with latents that are kept in `folder`. Raises `InvalidInput` where those there are of others."""
        source, mirror = self.pictures.source, self.pictures.mirror
        found = examples_of(source, self.teacher.pipe, folder, mirror, watch, processes or Processes())
        return replace(self, examples=replace(found, conditions=self.pictures.conditions))

    @property
    def count(self) -> int:
        """How many there are, mirrored ones too."""
        return self.examples.count

    @property
    def identity(self) -> Mapping[str, Any]:
        """The data, what is made of them, and who is asked about them at which guidance."""
        own = self.teacher.identity
        return {**self.examples.identity, "teacher": own["teacher"], "guidance": own["guidance"]}

    @property
    def guided(self) -> bool:
        """Whether there is anything to guide by."""
        return self.teacher.guides

    @property
    def lost(self) -> dict[int, str]:
        """Why some samples could not be read, by number."""
        return self.pictures.source.lost

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some of them, by their numbers from 0."""
        found = self.examples.batch(numbers)
        # Where others are guided and none of these is, each is guided away from itself, which changes nothing.
        return replace(found, negative=found.condition) if self.guided and found.negative is None else found

    def shown(self, count: int, batch: int) -> Iterator[Tensor]:
        """Pictures (B, C, H, W) in [-1, 1], at most so many of all, some at a time."""
        numbers = some(self.pictures, count)
        for first in range(0, len(numbers), batch):
            part = [self.pictures.sample(number)[0] for number in numbers[first : first + batch]]
            yield torch.stack(part).to(self.teacher.pipe.model.device)


def some(pictures: Examples, count: int) -> list[int]:
    """The numbers of at most so many pictures of all kinds, the first of a mixed order; none is mirrored."""
    return epoch_order(pictures.source.count, 0, SEED)[:count].tolist()


def subjects_of(pictures: Examples, count: int) -> list[Any] | None:
    """What at most so many pictures show, in the same order; None where nothing is said of them."""
    if pictures.source.told == "nothing":
        return None
    return [pictures.sample(number)[1] for number in some(pictures, count)]
