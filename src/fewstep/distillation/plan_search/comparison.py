"""A student's own plan and another one on held-out pictures, and whether the other is surely better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.core.plan import Plan
from fewstep.distillation.judging.judge import Interval, Pictures, ratio, typical
from fewstep.distillation.judging.report import difference, ends
from fewstep.distillation.pictures.pairs import Pairs
from fewstep.distillation.plan_search.certificate import OWN, PLAIN, TUNED, StudentPlan
from fewstep.distillation.plan_search.trials import DISTANCE, Trials
from fewstep.drawing import Layout, png_bytes
from fewstep.measure.distance import over_images
from fewstep.measure.figure import BOOTSTRAP, Figure
from fewstep.pipeline import sheet_of
from fewstep.tuning.family import Family
from fewstep.tuning.renoised import plan_of

SHOWN = 8
"""Pictures on the page."""


class Seen(NamedTuple):
    """What a plan drew, and how far that is."""

    plan: Plan
    pictures: Pictures
    distance: Figure | None


class Comparison(NamedTuple):
    """The own plan first among `lines`; see `StudentCertificate` for the others."""

    lines: tuple[StudentPlan, ...]
    better: bool
    gain: Interval | None
    farther: Interval | None
    floor: Interval | None
    pictures: Mapping[str, bytes]


def compared(trials: Trials, own: Plan, chosen: Plan, family: Family, others: Pairs | None) -> Comparison:
    """The own plan, the one that was chosen on other noise, and where the own one draws noise, its times without.

    `others` are pictures of the teacher, of as much other noise: their distance is the floor.
    """
    plans = {OWN: own} | ({TUNED: chosen} if chosen.digest != own.digest else {})
    if own.stochastic:
        fresh = family.own.fresh * 0
        plans[PLAIN] = plan_of(family.own._replace(fresh=fresh), family.schedule)
    seen = {who: looked(trials, plan) for who, plan in plans.items()}
    lines = tuple(line(who, one, trials.objective) for who, one in seen.items())
    gain, farther, better = None, None, False
    if TUNED in seen:
        farther = difference(seen[TUNED].distance, seen[OWN].distance)
        gain = gained(seen[OWN], seen[TUNED], trials.objective)
        better = is_better(gain, farther, trials.objective)
    return Comparison(lines, better, gain, farther, floor_of(trials, others), shown(trials, plans))


def looked(trials: Trials, plan: Plan) -> Seen:
    """A plan on all pictures."""
    pictures = trials.look(plan)
    return Seen(plan, pictures, trials.judge().distance(pictures))


def line(who: str, seen: Seen, objective: str) -> StudentPlan:
    """What is said of a plan."""
    error = None if objective == DISTANCE else error_of(seen.pictures.errors, objective)
    return StudentPlan.of(who, seen.plan, error, ends(seen.distance))


def error_of(errors: Tensor, objective: str) -> Interval:
    """The error of a plan from the mean squared ones (n,) of pictures, with its interval."""
    return typical(errors) if objective == "psnr" else root(errors, torch.ones_like(errors))


def gained(own: Seen, other: Seen, objective: str) -> Interval | None:
    """How many times less error, or how much less distance, another plan has; None where pictures are lost."""
    if objective == DISTANCE:
        return difference(own.distance, other.distance)
    if objective == "psnr":
        return ratio(own.pictures.errors, other.pictures.errors)
    return root(own.pictures.errors, other.pictures.errors)


def root(first: Tensor, second: Tensor) -> Interval:
    """The ratio of root mean squares over pictures (n,), drawn again together."""
    weights = BOOTSTRAP.weights(len(first))
    again = ((weights @ first) / (weights @ second)).sqrt()
    low, high = torch.quantile(again.nan_to_num(nan=torch.inf), torch.tensor([0.025, 0.975]).double()).tolist()
    value = float(over_images(first, "rmse") / over_images(second, "rmse"))
    return Interval(value, low, high)


def is_better(gain: Interval | None, farther: Interval | None, objective: str) -> bool:
    """Whether it is surely better: by the error, and then its distance is not surely more; or by the distance."""
    if gain is None or farther is None:  # pictures are lost
        return False
    if objective == DISTANCE:
        return gain.low > 0
    return gain.low > 1 and farther.low <= 0


def floor_of(trials: Trials, others: Pairs | None) -> Interval | None:
    """The teacher's own distance to its pictures of other noise; None where there are not as many of these."""
    if others is None or others.count != trials.pairs.count:
        return None
    judge = trials.judge()
    return ends(judge.distance(judge.look(others.states)))


def shown(trials: Trials, plans: Mapping[str, Plan]) -> dict[str, bytes]:
    """The first pictures by each plan, and by the teacher where it drew the same."""
    first = range(min(SHOWN, trials.pairs.count))
    found = {} if trials.objective == DISTANCE else {"the teacher": trials.pairs.states(first)}
    found |= {who: trials.draw(plan)(first) for who, plan in plans.items()}
    judge = trials.judge()
    return {who: sheet(judge.shown(states)) for who, states in found.items()}


def sheet(pixels: Tensor) -> bytes:
    """Pictures (n, C, H, W) in [-1, 1] beside each other, enlarged to 64 pixels at least."""
    layout = Layout(columns=len(pixels), scale=max(1, 64 // pixels.shape[-1]), gap=1)
    return png_bytes(sheet_of(pixels, (-1.0, 1.0), layout))
