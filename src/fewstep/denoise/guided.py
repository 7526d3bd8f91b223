"""A network under guidance, in one call over the images that need each branch.

At the method's idle scale (1 for most), and outside the interval, an image costs one evaluation.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.attention import install, perturbed
from fewstep.denoise.base import Denoiser, Level, Value
from fewstep.denoise.branches import Branch, check_conditions, check_network, evaluate, picked, weak_output
from fewstep.denoise.cfg import CFG
from fewstep.denoise.convert import Network
from fewstep.denoise.method import NEGATIVE, PERTURBED, POSITIVE, WEAK, Method, Outputs, State
from fewstep.denoise.methods import method_of
from fewstep.denoise.scale import (
    EVERYWHERE,
    GuidanceSchedule,
    Moment,
    Scale,
    Weight,
    check_negative,
    column,
    moments_of,
)


class Need(NamedTuple):
    """What an image needs in a row of its plan: its weight there, and the branches."""

    moment: Moment
    weight: float | None
    branches: tuple[str, ...]


class _Group(NamedTuple):
    """Images of a batch that need the same branches; weights and moments are one for all or one for each."""

    branches: tuple[str, ...]
    images: list[int]
    weights: list[float | None]
    moments: list[Moment]


class Guided(Denoiser):
    """A conditional network under guidance.

    Args:
        network: the network; its own condition is replaced.
        condition, negative: keyword arguments for the two branches; tensors have the batch first, in both the same
            keys. Without a negative one there is no classifier-free guidance.
        scale: w, a number or a `GuidanceSchedule`, one for all images or one for each; 1 is the conditional model
            alone, but for `CFGPlusPlus`.
        method: a name in `METHODS`, or a method with options such as `APG(eta=0.5)`.
        interval: (low, high) in sigma / alpha; guidance acts for low < sigma / alpha <= high only (Kynkaanniemi et al.
            2024, arXiv 2404.07724).
        weaker: the network of `AutoGuidance`, with its own condition.

    Raises:
        InvalidInput: for a method that the network cannot be guided by, and a negative condition that is missing or
            cannot act.
    """

    def __init__(
        self,
        network: Network,
        condition: Mapping[str, Any],
        negative: Mapping[str, Any] | None = None,
        scale: Weight | Sequence[Weight] = 1.0,
        *,
        method: str | Method = "cfg",
        interval: tuple[float, float] = EVERYWHERE,
        weaker: Network | None = None,
    ):
        self.network = check_network(network)
        self.schedule = network.schedule
        self.weaker = None if weaker is None else check_network(weaker)
        self.scale = Scale(scale, interval)
        self.method = method if isinstance(method, Method) else method_of(method)
        self.condition = dict(condition)
        self.negative = self.condition if negative is None else dict(negative)
        check_conditions(self.condition, self.negative)
        self.method.check(network)
        self._check(negative is not None)
        self.layers = install(network.module, self.method.perturbs)
        self.needs_run = self.scale.by_row or self.method.needs_run
        self._memory: dict[int, Tensor] | None = None  # of each image at its last guided row, in a run's own copy

    def _check(self, negative: bool) -> None:
        use, each = self.method.negative, self.scale.each
        for weight in each:
            known = weight.values or () if isinstance(weight, GuidanceSchedule) else [weight]
            for number in known:
                self.method.check_weight(number)
        if negative and use == "optional":
            check_negative(each)
        if negative and use == "unused":
            raise InvalidInput("a negative condition cannot act in autoguidance: leave it out")
        if not negative and use != "unused" and any(w != 1 for w in each):
            raise InvalidInput(
                "guidance other than 1 needs a negative condition: give negative=, or leave the scale out"
            )
        if self.weaker is None and use == "unused":
            raise InvalidInput("autoguidance moves away from a weaker model: give weaker=")

    @property
    def affine(self) -> bool:
        return not self.method.splits

    def coefficients(self, t: Value, alpha: Value, sigma: Value) -> tuple[Value, Value]:
        return self.network.coefficients(t, alpha, sigma)

    def begin(self) -> Denoiser:
        if not self.method.remembers:
            return self
        run = copy.copy(self)
        run._memory = {}
        return run

    def check(self, plan: Plan) -> None:
        self.scale.check(plan)
        self.method.check_plan(plan)
        acting = [i for i, weight in enumerate(self.scale.each) if not self.method.idles(weight)]
        if not acting:
            return
        if plan.guidance_factors is not None and not self.scale.by_row:
            raise InvalidInput(
                f"the plan {plan.digest} was tuned with guidance by row, which classifier-free guidance alone follows: "
                "leave the guidance method out; give `GuidanceSchedule.following(scale, plan)` to a denoiser of your "
                "own, or plan= to `pipe.denoiser`; or tune with --constant-guidance"
            )
        if all(need.branches == (POSITIVE,) for i in acting for need in self.needs(plan, i)):
            ratios = [moment.ratio for moment in moments_of(plan)]
            warnings.warn(
                "guidance and its negative condition act in no row of this plan: sigma / alpha goes from "
                f"{max(ratios):.3g} to {min(ratios):.3g}, the guidance interval is {self.scale.interval}",
                stacklevel=2,
            )

    def needs(self, plan: Plan, image: int = 0) -> list[Need]:
        """What an image of the batch needs in each row of a plan."""
        weights = [(moment, self.scale.at(image, moment)) for moment in moments_of(plan)]
        return [Need(moment, w, self.method.branches(moment, w)) for moment, w in weights]

    def following(self, plan: Plan) -> Guided:
        """This denoiser, its weights as the rows of a tuned plan take them; see `GuidanceSchedule.following`."""
        if not isinstance(self.method, CFG):
            return self
        other = copy.copy(self)
        other.scale = Scale([GuidanceSchedule.following(w, plan) for w in self.scale.each], self.scale.interval)
        other.needs_run = other.scale.by_row
        return other

    def output(self, x: Tensor, level: Level) -> Tensor:
        if not self.affine:
            raise InvalidInput("CFG++ has two estimates and no single output: ask for estimate(x, level)")
        return self._guided(x, level)[0]

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        data, raw = self._guided(x, level)
        skip, out = self.coefficients_at(level)
        guided = skip * x + out * data
        return guided, guided if raw is data else skip * x + out * raw

    def alone(self, x: Tensor, level: Level) -> Tensor:
        """The output of the conditional model, without guidance."""
        return self.network.given(self.condition).output(x, level)

    def estimate_by(self, factor: Tensor, x: Tensor, level: Level) -> Tensor:
        """The estimate of x0 under classifier-free guidance with 1 + (w - 1) `factor` in place of w; it is
        differentiable in the factor, ().
        """
        images, moments = range(x.shape[0]), level.moments
        outputs = self._outputs(x, level, {POSITIVE: images, NEGATIVE: images})
        weights = [self.scale.at(i, moments[i % len(moments)]) for i in images]
        weight = 1 + (column([1.0 if w is None else w for w in weights], x) - 1) * factor.to(x)
        skip, out = self.coefficients_at(level)
        return skip * x + out * self.method.combine(outputs, weight, State(x, skip, out, moments, weights), None)[0]

    def _guided(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """(data, raw) of the batch, in the network's output."""
        groups = self._groups(x.shape[0], level)
        images: dict[str, list[int]] = {}
        for group in groups:
            for branch in group.branches:
                images[branch] = sorted([*images.get(branch, ()), *group.images])
        outputs = self._outputs(x, level, images)
        combined = []
        for group in groups:
            own = {name: _rows(outputs[name], images[name], group.images) for name in group.branches}
            combined.append(self._combined(group, own, x, level))
        if len(groups) == 1:
            return combined[0]
        order = torch.tensor([i for group in groups for i in group.images], device=x.device).argsort()
        data = torch.cat([part for part, _ in combined])[order]
        same = all(raw is part for part, raw in combined)
        return data, data if same else torch.cat([raw for _, raw in combined])[order]

    def _groups(self, batch: int, level: Level) -> list[_Group]:
        """Who is guided how."""
        moments, count = level.moments, len(self.scale.each)
        if count not in (1, batch):
            raise InvalidInput(f"guidance scales must be one for all or one for each of {batch} images, got {count}")
        groups: dict[Any, _Group] = {}
        cases = max(len(moments), count)
        for case in range(cases):
            moment = moments[case % len(moments)]
            weight = self.scale.at(case, moment)
            branches = self.method.branches(moment, weight)
            group = groups.setdefault(branches, _Group(branches, [], [], []))
            group.images.extend([case] if cases > 1 else range(batch))
            group.weights.append(weight)
            group.moments.append(moment)
        return list(groups.values())

    def _outputs(self, x: Tensor, level: Level, images: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The output of each branch over its images: one call of the network, and one of the weaker one."""
        conditions = {POSITIVE: self.condition, NEGATIVE: self.negative, PERTURBED: self.condition}
        parts = {name: Branch(own, images[name]) for name, own in conditions.items() if name in images}
        broken = len(images.get(PERTURBED, ()))
        total = sum(len(part.images) for part in parts.values())
        with perturbed(self.layers, total, broken) if broken else nullcontext():
            found = evaluate(self.network, x, level, parts)
        if WEAK in images and self.weaker is not None:
            some, own = images[WEAK], self.weaker.condition
            weaker = self.weaker.given({name: picked(name, v, some, x.shape[0]) for name, v in own.items()})
            found[WEAK] = weak_output(self.network, weaker, *_taken(x, level, some))
        return found

    def _combined(self, group: _Group, outputs: Outputs, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """(data, raw) of a group."""
        x, level = _taken(x, level, group.images)
        past, memory = self._memory, None
        if past and not past.keys().isdisjoint(group.images):
            memory = torch.stack([past[i] if i in past else torch.zeros_like(x[0]) for i in group.images])
        state = State(x, *self.coefficients_at(level), group.moments, group.weights)
        data, raw, memory = self.method.guide(outputs, state, memory)
        if past is not None and memory is not None:
            past.update(zip(group.images, memory, strict=True))
        return data, raw


def _taken(x: Tensor, level: Level, images: Sequence[int]) -> tuple[Tensor, Level]:
    """Some images of the batch."""
    if len(images) == x.shape[0]:
        return x, level
    index = torch.tensor(images, device=x.device)
    return x[index], level.take(index, images)


def _rows(output: Tensor, places: Sequence[int], images: Sequence[int]) -> Tensor:
    """The rows of a branch's output, which is over `places`, for some images of them."""
    if len(places) == len(images):
        return output
    where = {place: i for i, place in enumerate(places)}
    return output[torch.tensor([where[i] for i in images], device=output.device)]
