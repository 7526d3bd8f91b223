"""What a teacher makes of noise, drawn once and kept: pairs for regression, and images for the other methods.

Pair n has noise of its own, by its number, and the condition of one of the subjects in turn. Only the teacher's states
are kept, in parts of 512 that appear whole or not at all, so that an interrupted run goes on.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.denoise.base import Level
from fewstep.distillation.pictures.teacher import Conditions, Teacher, followed, noise_of, solved
from fewstep.pipeline.stages import denoiser_of
from fewstep.training import Batch, Processes
from fewstep.zoo import container

PART = 512
BLANK = 64
"""Pictures of a trial."""
ALONE = Processes()


@dataclass(frozen=True, eq=False)
class Pairs:
    """Noise, and what the teacher makes of it; data for `fewstep.training`.

    Attributes:
        parts: (up to 512, c, h, w) each, the teacher's states; from files that the system maps into memory, so that
            they need not fit into it.
        first: the number of the first pair.
        seconds: that drawing them took; None where a part does not say.
        along: (up to 512, levels, c, h, w) each, the states on the way, where the teacher keeps them.
    """

    teacher: Teacher
    conditions: Conditions
    parts: tuple[Tensor, ...]
    first: int = 0
    seconds: float | None = None
    along: tuple[Tensor, ...] = ()

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self.parts))

    @property
    def guided(self) -> bool:
        """Whether there is anything to guide by."""
        return self.conditions.guided

    @property
    def shape(self) -> tuple[int, ...]:
        """(c, h, w) of a state."""
        return tuple(self.parts[0].shape[1:])

    @property
    def identity(self) -> Mapping[str, Any]:
        """What names them."""
        return {**self.teacher.identity, "count": self.count, "first": self.first}

    def states(self, numbers: Sequence[int]) -> Tensor:
        """(B, c, h, w) on the host, of some pairs by their numbers from 0."""
        return self.rows(self.parts, numbers)

    def rows(self, parts: Sequence[Tensor], numbers: Sequence[int]) -> Tensor:
        """(B, ..) of parts that are stored as the states are."""
        size = len(self.parts[0])
        return torch.stack([parts[number // size][number % size] for number in numbers])

    def batch(self, numbers: Sequence[int]) -> Batch:
        """Some pairs, by their numbers from 0."""
        own = [self.first + number for number in numbers]
        found, device = self.conditions.of(own), self.teacher.pipe.model.device
        states = self.states(numbers).to(device)
        # Where others are guided and none of these is, each is guided away from itself, which changes nothing.
        away = found.positive if found.negative is None and self.conditions.guided else found.negative
        along = self.rows(self.along, numbers).to(device) if self.along else None
        return Batch(states, noise_of(own, self.shape, device), found.positive, away, along=along)


def drawn(
    teacher: Teacher,
    count: int,
    folder: Path,
    first: int = 0,
    batch: int = 64,
    watch: Callable[[int, int], None] = lambda done, of: None,
    processes: Processes = ALONE,
) -> Pairs:
    """`count` pairs with the numbers from `first`, from the parts in `folder` as far as these are there.

    Parts that are not are drawn by the processes in turn.

    Raises `InvalidInput` where a part is damaged, or belongs to another teacher, plan, guidance or other subjects.
    """
    folder.mkdir(parents=True, exist_ok=True)
    conditions = Conditions(teacher)
    ranges = [range(begin, min(begin + PART, first + count)) for begin in range(first, first + count, PART)]

    def write_own() -> None:
        for numbers in ranges[processes.rank :: processes.count]:
            path = path_of(folder, numbers)
            if not path.exists():
                write_part(path, teacher, conditions, numbers, batch)
            if processes.main:
                watch(min(count, numbers.start - first + len(numbers) * processes.count), count)

    processes.together(write_own)
    parts = [kept(path_of(folder, numbers), teacher, len(numbers)) for numbers in ranges]
    took = [part.seconds for part in parts if part.seconds is not None]
    seconds = sum(took) if len(took) == len(parts) else None
    along = tuple(part.along for part in parts if part.along is not None)
    return Pairs(teacher, conditions, tuple(part.states for part in parts), first, seconds, along)


def path_of(folder: Path, numbers: range) -> Path:
    """The file of a part."""
    return folder / f"{numbers.start:09d}-{len(numbers)}.safetensors"


def blank(teacher: Teacher, count: int) -> Pairs:
    """Pairs whose pictures are noise, the same again and again: what a trial has before there are any."""
    shape = teacher.pipe.model.state_shape(teacher.order.drawing.height, teacher.order.drawing.width)
    some = noise_of(range(min(BLANK, count)), shape, "cpu")
    whole, left = divmod(count, len(some))
    parts = (*[some] * whole, *([some[:left]] if left else []))
    along = tuple(part[:, None].expand(-1, len(teacher.along), *shape) for part in parts) if teacher.along else ()
    return Pairs(teacher, Conditions(teacher), parts, along=along)


def bytes_of(teacher: Teacher, count: int) -> int:
    """Of so many pairs on the disk."""
    shape = teacher.pipe.model.state_shape(teacher.order.drawing.height, teacher.order.drawing.width)
    return count * math.prod(shape) * (4 + 2 * len(teacher.along))


def seconds_of(teacher: Teacher, pairs: Pairs, batch: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Of a picture that the teacher draws, by one row of its plan for a batch, which it is timed for."""
    model, plan = teacher.pipe.model, teacher.order.plan
    numbers = [number % pairs.count for number in range(batch)]
    denoiser = denoiser_of(model, teacher.order.drawing.guidance, pairs.conditions.of(numbers), plan)
    x, row = noise_of(numbers, pairs.shape, model.device), plan.rows[0]
    level = Level.at([row[:3]], x, (0,), plan.ends[:1])
    with torch.no_grad():
        denoiser.estimate(x, level)
        began = clock()
        float(denoiser.estimate(x, level)[0].sum())
    return (clock() - began) * len(plan.rows) / batch


class Part(NamedTuple):
    """Some pairs from a file: the teacher's states, the seconds that drawing them took, where it says so, and the
    states on the way, where they are kept.
    """

    states: Tensor
    seconds: float | None
    along: Tensor | None = None


def kept(path: Path, teacher: Teacher, count: int) -> Part:
    """A part. Raises `InvalidInput` for one of something else, or that is damaged."""
    drawing = teacher.order.drawing
    shape = teacher.pipe.model.state_shape(drawing.height, drawing.width)
    shapes = {"states": (count, *shape)} | ({"along": (count, len(teacher.along), *shape)} if teacher.along else {})
    try:
        file = container.inspect(path)
        of = json.loads(file.metadata["pairs"])
        seconds = float(file.metadata["seconds"]) if "seconds" in file.metadata else None
        same = of == json.loads(json.dumps(teacher.identity))
        if same and file.shapes != shapes:
            raise ValueError(f"{file.shapes} for {shapes}")
    except (ValueError, KeyError) as error:
        raise InvalidInput(f"{path} is damaged ({error}): remove it, and it is drawn again") from error
    if not same:
        raise InvalidInput(
            f"{path} holds pairs of another teacher, plan, guidance or other subjects: give another folder, or remove "
            "it"
        )
    tensors = file.tensors()
    return Part(tensors["states"], seconds, tensors.get("along"))


def write_part(path: Path, teacher: Teacher, conditions: Conditions, numbers: range, batch: int) -> None:
    """Draw some pairs, and write their states whole or not at all. Raises `InvalidInput` where some are not finite."""
    began = time.perf_counter()
    some = [numbers[i : i + batch] for i in range(0, len(numbers), batch)]
    if teacher.along:
        found = [followed(teacher, conditions, each) for each in some]
        tensors = {"states": torch.cat([end for end, _ in found]), "along": torch.cat([along for _, along in found])}
    else:
        tensors = {"states": torch.cat([solved(teacher, conditions, each) for each in some])}
    states = tensors["states"]
    seconds = time.perf_counter() - began
    lost = (~states.isfinite().flatten(1).all(dim=1)).nonzero().flatten().tolist()
    if lost:
        subjects = teacher.order.drawing.subjects
        named = list(dict.fromkeys(subjects[numbers[i] % len(subjects)] for i in lost))
        raise InvalidInput(
            f"{len(lost)} of {len(states)} pictures of the teacher are NaN or infinite, of {named[:8]!r:.300}: leave "
            "these out, or use a lower guidance scale"
        )
    container.write(path, tensors, {"pairs": teacher.identity, "seconds": seconds})
