"""How a student does while it is trained: looks at its averaged weights, on noise of their own.

A loss says little of a student. So every so many steps it draws some held-out pairs, and what it draws is compared with
the teacher's: the error, the distance, how varied and how saturated the pictures are. For a method whose estimate is to
be the same all along a trajectory, the looks follow the teacher's own trajectories: at the least noise the estimate is
to be the picture itself (the boundary), and at every other level the trajectory's end (self-consistency). Where it
learns from real pictures, the distance is measured to these too.

The weights of the best look are kept, and are the student in the end: that of the least error, or self-consistency
where the plan draws noise. Where there is nothing else a distance judges, to real pictures if there are some, else to
the teacher's. Of few pictures it is unsure: later weights are as good as long as theirs is not surely larger than the
least. Looks change no bit of what is trained.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.distillation.judging import signs
from fewstep.distillation.judging.judge import FEW, Judge, Pictures, by_student
from fewstep.distillation.judging.signs import Signing
from fewstep.distillation.judging.trajectory import Trajectories
from fewstep.distillation.terms.plan import plan_of
from fewstep.measure.distance import overall
from fewstep.training import STUDENT, Method, Roles, Seen, is_paired
from fewstep.zoo import container

BEST = "best.safetensors"
KEY = "best"
WORSE = 1.1
VARIED = (0.9, 1.1)
SATURATED = 0.05
WIDTHS = 2
"""Looks compare one with another, not with nought, so that fewer pictures make a Frechet distance."""
BOUNDARY, ALONG = 0.05, 0.5


@dataclass(frozen=True)
class Checks:
    """How often a student is looked at while it is trained.

    Attributes:
        every: steps between looks; 0 takes none, and the last weights are the student.
        count: pictures that it draws for each, and as many of the teacher's that these are compared with.
        patience: looks without a better one after which the training ends; 0 never ends it.
    """

    every: int = 100
    count: int = 128
    patience: int = 0

    def __post_init__(self) -> None:
        for name, least in (("every", 0), ("count", 16), ("patience", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InvalidInput(f"{name} of checks must be a whole number of at least {least}, got {value!r}")
        if self.patience and not self.every:
            raise InvalidInput(f"a patience of {self.patience} looks needs looks: give every above 0")


class Remark(NamedTuple):
    """A figure that has left its sensible range, and what that means."""

    figure: str
    words: str


@dataclass(frozen=True)
class Health:
    """What a look found.

    Attributes:
        step: after which; `best`: that with the least error or distance so far.
        figures: by name: "error" of the typical picture, where it is to be the teacher's; "distance", and "distance to
            data" where it learns from real pictures; "diversity", a share of the teacher's; "saturation", the share of
            pixels at an end of the range, less the teacher's; "boundary" and "self-consistency", shares of the
            pictures' root mean square, for methods that have them; and the signs of methods that compare distributions
            (`fewstep.distillation.judging.signs`).
        remarks: on those that have left their range.
    """

    step: int
    best: int
    figures: Mapping[str, float]
    remarks: tuple[Remark, ...]


DISTANCE, TO_DATA = "distance", "distance to data"
JUDGED_BY = ("error", "self-consistency", TO_DATA, DISTANCE)
"""Which figure tells the better of two looks: the first of these that there is."""
UNSURE = "unsure"
"""Half of the interval of the distance that would judge."""


class Best(NamedTuple):
    """The best look so far.

    Attributes:
        step: of the weights that are kept; `value`: the least so far of the figure that looks are judged by.
        since: the step of that least value.
    """

    step: int
    value: float
    since: int


@dataclass(eq=False)
class Watcher:
    """The looks of a run.

    Attributes:
        judge: of the watched pairs; `trajectories`: of the teacher over these, where the method follows them.
        folder: where the best weights are kept; `identity`: of the run that these belong to.
        tell: told of every look.
    """

    method: Method
    checks: Checks
    judge: Judge
    folder: Path
    identity: Mapping[str, Any]
    steps: int
    trajectories: Trajectories | None = None
    tell: Callable[[Health], None] = lambda health: None
    best: Best | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.teacher = self.judge.look(self.judge.held_out.states)
        self.best = self.kept()

    @property
    def every(self) -> int:
        return self.checks.every

    def __call__(self, step: int, roles: Roles) -> Seen:
        """Look after a step of the last stage; of earlier ones the student draws in other numbers of rows."""
        phase = self.method.phase(step - 1, self.steps)
        if phase.stage + 1 < phase.stages:
            return Seen()
        held_out = self.judge.held_out
        network, plan = roles[STUDENT].at(held_out.teacher.guidance), plan_of(self.method, roles)
        paired = self.judge.pairs(plan) and is_paired(self.method)
        figures = self.figures(self.judge.look(by_student(network, plan, held_out)), not paired)
        if isinstance(self.method, Signing):
            figures |= signs.seen(self.method, roles, held_out, self.judge.batch)
        if self.trajectories is not None:
            figures |= self.trajectories.errors(network)
        unsure, by = figures.pop(UNSURE, 0.0), judged_by(figures)
        value, before = figures[by], self.best
        if before is None or value < before.value:
            self.keep(Best(step, value, step), weights_of(roles))
        elif by in (TO_DATA, DISTANCE) and value <= before.value + unsure:
            self.keep(before._replace(step=step), weights_of(roles))
        assert self.best is not None
        self.tell(Health(step, self.best.step, figures, remarks_of(figures, step, self.best)))
        return Seen({name: value for name, value in figures.items() if math.isfinite(value)})

    def ends(self, step: int) -> bool:
        """Whether so many looks were no better that the training ends after a step."""
        patience = self.checks.patience
        return patience > 0 and self.best is not None and step - self.best.since >= patience * self.checks.every

    def figures(self, pictures: Pictures, noisy: bool) -> dict[str, float]:
        """Of some pictures."""
        found = {} if noisy else {"error": overall(pictures.errors, "psnr")}
        distances = {DISTANCE: self.judge.distance(pictures, FEW)}
        if self.judge.data is not None:
            distances[TO_DATA] = self.judge.distance_to_data(pictures, FEW)
        for name, distance in distances.items():
            found[name] = math.inf if distance is None else distance.value
            found[UNSURE] = 0.0 if distance is None else (distance.high - distance.low) / 2
        found["diversity"] = self.judge.diversity(pictures) / max(1e-12, self.judge.diversity(self.teacher))
        return found | {"saturation": pictures.saturation - self.teacher.saturation}

    def keep(self, best: Best, weights: Mapping[str, Tensor]) -> None:
        """Write down weights as the best, whole or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        facts = best._asdict() | {"value": best.value if math.isfinite(best.value) else None}
        container.write(self.folder / BEST, dict(weights), {KEY: {**facts, "run": dict(self.identity)}})
        self.best = best

    def kept(self) -> Best | None:
        """The best look of earlier sittings of this run; that of another run counts for nothing.

        Raises `InvalidInput` where its file is damaged.
        """
        path = self.folder / BEST
        if not path.exists():
            return None
        facts = self.facts(path)
        if facts["run"] != json.loads(json.dumps(dict(self.identity))):
            return None
        value = math.inf if facts["value"] is None else float(facts["value"])
        return Best(int(facts["step"]), value, int(facts["since"]))

    def facts(self, path: Path) -> dict[str, Any]:
        """What the file of the best weights says of them."""
        try:
            found = container.inspect(path).document(KEY, "the best weights of a training")
            if not {*Best._fields, "run"} <= set(found):
                raise InvalidInput("it lacks step, value, since or run")
        except InvalidInput as error:
            raise InvalidInput(
                f"{path} is damaged ({error}): remove it, and the best of the looks to come is kept"
            ) from error
        return found

    @torch.no_grad()
    def put_best(self, roles: Roles) -> int:
        """The weights of what is trained become the best ones that were seen. Returns the step of these."""
        if self.best is None:
            return self.steps
        weights, tensors = weights_of(roles), container.inspect(self.folder / BEST).tensors()
        for name, tensor in tensors.items():
            weights[name].copy_(tensor)
        return self.best.step


def weights_of(roles: Roles) -> dict[str, Tensor]:
    """Of all that is trained, by role and name."""
    trained = {name: role.weights for name, role in roles.items() if role.trained}
    return {f"{name}.{key}": weight for name, weights in trained.items() for key, weight in weights.items()}


def judged_by(figures: Mapping[str, float]) -> str:
    """Which of its figures a look is compared with others by."""
    return next(name for name in JUDGED_BY if name in figures)


def remarks_of(figures: Mapping[str, float], step: int, best: Best) -> tuple[Remark, ...]:
    """What is to be said of figures after a step, with what to do."""
    found: list[Remark] = []
    judged = judged_by(figures)
    value = figures[judged]
    if step != best.step and best.value > 0 and value > WORSE * best.value:
        words = f"{value / best.value:.2g} times that of step {best.step}, whose weights are kept: lower the rate"
        found.append(Remark(judged, words))
    varied = figures["diversity"]
    if varied < VARIED[0]:
        found.append(Remark("diversity", f"{varied:.0%} of the teacher's: pictures are blurred or alike; train longer"))
    if varied > VARIED[1]:
        words = f"{varied:.0%} of the teacher's: noise is left in the pictures"
        found.append(Remark("diversity", f"{words}; lower the rate, or train longer"))
    ends = figures["saturation"]
    if abs(ends) > SATURATED:
        kind, cure = ("more", "lower the rate, or the guidance") if ends > 0 else ("less", "train longer")
        words = f"{abs(ends):.0%} of the pixels {kind} than the teacher's are at an end of the range: {cure}"
        found.append(Remark("saturation", words))
    if figures.get("boundary", 0.0) > BOUNDARY:
        words = f"{figures['boundary']:.2f} at the least noise, where the estimate is to be the picture itself"
        found.append(Remark("boundary", f"{words}: draw less noise (least), or lower the rate"))
    if figures.get("self-consistency", 0.0) > ALONG:
        words = f"{figures['self-consistency']:.2f} between estimates along a trajectory and its end"
        found.append(Remark("self-consistency", f"{words}: train longer, or lower the rate where it grows"))
    return (*found, *(Remark(*words) for words in signs.words_on(figures)))
