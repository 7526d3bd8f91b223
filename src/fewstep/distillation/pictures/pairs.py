"""What a teacher makes of noise, drawn once and kept: pairs for regression, and images for the other methods.

Pair n has noise of its own, by its number, and the condition of one of the subjects in turn. Only the teacher's states
are kept, in parts of 512 that appear whole or not at all, so that an interrupted run goes on.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Denoiser, Level
from fewstep.distillation.pictures.recording import Recorded
from fewstep.pipeline import Order, Pipeline
from fewstep.pipeline.stages import Conditioned, check, denoiser_of, encode
from fewstep.run.eager import NonFinite, sample
from fewstep.run.noise import START, unit_noise
from fewstep.training import Batch, Processes
from fewstep.zoo import container

PART = 512
FIRST_SEED = 2**42
"""Seeds of the noise of pairs start here, far from those that people draw with."""
USUAL_STEPS = 20
BLANK = 64
"""Pictures of a trial."""
ALONE = Processes()


@dataclass(frozen=True, eq=False)
class Teacher:
    """How a teacher draws: its pipeline and an order of one image of each subject, at its guidance and by its plan.

    Attributes:
        along: the times at which the states of its trajectories are kept too.
    """

    pipe: Pipeline
    order: Order
    along: tuple[float, ...] = ()

    @staticmethod
    def of(
        pipe: Pipeline,
        subjects: Sequence[Any] | None,
        guidance: float | None,
        steps: int | None,
        plan: Plan | None = None,
    ) -> Teacher:
        """The teacher that draws subjects, None for all of its classes.

        Without a `plan` it is one of so many `steps` of its own sampler, or of DDIM where it is a student with a plan
        of its own. None is that plan, or 20 steps.
        """
        check_subjects(pipe, subjects)
        sampling: dict[str, Any] = {"steps": USUAL_STEPS if steps is None else steps}
        if "plan" in pipe.model.recommended.get("sampling", {}):
            sampling = {} if steps is None else {"sampler": "ddim", **sampling}
        if plan is not None:
            sampling = {"plan": plan}
        order = pipe.order(subjects, guidance=guidance, sampling=sampling)
        if not isinstance(order.drawing.guidance.scale, float | int):
            raise InvalidInput("a teacher's guidance is one scale for all of its rows: give a number")
        pipe.model.conditioner.check(pipe.model.name, order.drawing, order.plan)
        one = replace(order, drawing=next(order.drawing.each))  # as never all are drawn at once
        check(pipe.model, one)
        return Teacher(pipe, order)

    @property
    def guidance(self) -> float:
        """The scale."""
        return float(self.order.drawing.guidance.scale)  # type: ignore[arg-type]  # `of` saw to it

    @property
    def guides(self) -> bool:
        """Whether it is guided, at two evaluations a row."""
        return self.pipe.model.conditioner.guides_away(self.order.drawing.guidance)

    def keeping(self, along: Sequence[float]) -> Teacher:
        """The same teacher, which keeps states at some times. Raises `InvalidInput` for times that it does not meet."""
        met = [row.t for row in self.order.plan.rows]
        strange = [time for time in along if time not in met]
        if strange:
            recipe = self.order.plan.recipe
            raise InvalidInput(
                f"the method learns from the teacher's states at {len(along)} times, and the teacher's plan, "
                f"{len(met)} rows of {recipe.sampler} on {recipe.grid}, does not meet {strange[0]:g}: give times that "
                "it meets, or none"
            )
        return replace(self, along=tuple(along))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides what it draws, as plain JSON values."""
        subjects = list(self.order.drawing.subjects)
        kept = {"along": list(self.along)} if self.along else {}
        return kept | {
            "teacher": self.pipe.model.digest,
            "plan": self.order.plan.digest,
            "guidance": self.guidance,
            "subjects": f"{len(subjects)}, {hashlib.sha256(json.dumps(subjects).encode()).hexdigest()[:16]}",
        }


def check_subjects(pipe: Pipeline, subjects: Sequence[Any] | None) -> None:
    """Raise `InvalidInput` for labels where the model draws from words, words where it draws classes, and nothing."""
    name, words = pipe.model.name, pipe.model.conditioner.field == "prompts"
    if words and not (subjects and all(isinstance(one, str) for one in subjects)):
        raise InvalidInput(
            f"{name} draws from words, and a student learns from pictures of prompts, got "
            f"{'labels' if subjects else 'none'}: give prompts"
        )
    if not words and any(isinstance(one, str) for one in subjects or ()):
        raise InvalidInput(f"{name} draws classes, and got prompts: give labels, or nothing for every class")


class Conditions:
    """The conditions of the subjects, each encoded once and kept on the host."""

    def __init__(self, teacher: Teacher) -> None:
        self.model, self.subjects = teacher.pipe.model, list(teacher.order.drawing.subjects)
        self.each = encode(self.model, list(teacher.order.drawing.each))

    @property
    def guided(self) -> bool:
        """Whether there is anything to guide by."""
        return any(one.negative is not None for one in self.each)

    def of(self, numbers: Sequence[int]) -> Conditioned:
        """Those of some samples, whose subjects come in turn, where the network is."""
        return Conditioned.of(self.model, [self.each[number % len(self.each)] for number in numbers])


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


def noise_of(numbers: Sequence[int], shape: Sequence[int], device: torch.device | str) -> Tensor:
    """Unit noise (B, *shape) of some pairs."""
    like = torch.empty((len(numbers), *shape), device=device)
    return unit_noise([FIRST_SEED + number for number in numbers], START, like)


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


def solved(teacher: Teacher, conditions: Conditions, numbers: Sequence[int], plan: Plan | None = None) -> Tensor:
    """(B, c, h, w) on the host: what the teacher, or another plan of its network, makes of the noise of some pairs."""
    model, order = teacher.pipe.model, teacher.order
    plan = order.plan if plan is None else plan
    drawing = order.drawing
    denoiser = denoiser_of(model, drawing.guidance, conditions.of(numbers), plan)
    noise = noise_of(numbers, model.state_shape(drawing.height, drawing.width), model.device)
    return run(plan, denoiser, noise, numbers)


def followed(teacher: Teacher, conditions: Conditions, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(B, c, h, w) what the teacher makes of the noise of some pairs, and (B, levels, c, h, w) its states on the way.

    These are in half precision, whose rounding is far below the noise in them.
    """
    model, order = teacher.pipe.model, teacher.order
    recorded = Recorded(denoiser_of(model, order.drawing.guidance, conditions.of(numbers), order.plan))
    noise = noise_of(numbers, model.state_shape(order.drawing.height, order.drawing.width), model.device)
    ends = run(order.plan, recorded, noise, numbers)
    return ends, torch.stack([recorded.at(time).half().cpu() for time in teacher.along], dim=1)


def run(plan: Plan, denoiser: Denoiser, noise: Tensor, numbers: Sequence[int]) -> Tensor:
    """(B, c, h, w) on the host: what a plan makes of unit noise. Pictures that are lost are NaN or infinite."""
    try:
        return sample(plan, denoiser, start=noise * plan.entry[1], seed=list(numbers)).float().cpu()
    except NonFinite as lost:
        return lost.result.float().cpu()
