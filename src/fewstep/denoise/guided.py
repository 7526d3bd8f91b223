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
from fewstep.denoise.base import Denoiser, Level, picked
from fewstep.denoise.cfg import CFG
from fewstep.denoise.convert import Network, check_network, weak_output
from fewstep.denoise.method import NEGATIVE, PERTURBED, POSITIVE, WEAK, BatchState, Method, Outputs, Setup
from fewstep.denoise.methods import method_of
from fewstep.denoise.scale import EVERYWHERE, GuidanceSchedule, Moment, Weight, by_row, column, moments_of, weights_of


class RowNeed(NamedTuple):
    """What an image needs in a row of its plan: its weight there, and the branches."""

    moment: Moment
    weight: float | None
    branches: tuple[str, ...]


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
        if not 0 <= interval[0] < interval[1]:
            raise InvalidInput(f"a guidance interval needs 0 <= low < high in sigma / alpha, got {interval}")
        self.network = check_network(network)
        self.schedule = network.schedule
        self.coefficients = network.coefficients  # those of all branches, so that guiding outputs guides estimates
        self.weaker = None if weaker is None else check_network(weaker)
        self.weights = weights_of(scale)
        self.interval = interval
        self.method = method if isinstance(method, Method) else method_of(method)
        self.condition = dict(condition)
        self.negative = self.condition if negative is None else _fitting(self.condition, negative)
        self.setup = Setup(network, self.weights, negative is not None, weaker is not None)
        self.method.check(self.setup)
        self.layers = install(network.module, self.method.perturbs) if self.method.perturbs else frozenset()
        self.needs_run = network.needs_run or self.method.needs_run or any(map(by_row, self.weights))
        self._memory: dict[int, Tensor] | None = None  # of each image at its last guided row, in a run's own copy

    @property
    def affine(self) -> bool:
        return not self.method.splits

    def begin(self) -> Denoiser:
        if not self.method.remembers:
            return self
        run = copy.copy(self)
        run._memory = {}
        return run

    def check(self, plan: Plan) -> None:
        for network in (self.network, *([self.weaker] if self.weaker else [])):
            network.check(plan)
        self.method.check(self.setup._replace(weights=self.weights, plan=plan))
        method = self.method
        acting = [i for i, weight in enumerate(self.weights) if method.own_scale or weight != method.idle]
        if not acting:
            return
        if plan.guidance_factors is not None and not any(map(by_row, self.weights)):
            raise InvalidInput(
                f"the plan {plan.digest} was tuned with guidance by row, which classifier-free guidance alone follows: "
                "leave the guidance method out; give `GuidanceSchedule.following(scale, plan)` to a denoiser of your "
                "own, or plan= to `pipe.denoiser`; or tune with --constant-guidance"
            )
        moments = moments_of(plan.rows, range(len(plan.rows)))
        if all(self.need(i, moment).branches == (POSITIVE,) for i in acting for moment in moments):
            ratios = [moment.ratio for moment in moments]
            warnings.warn(
                "guidance and its negative condition act in no row of this plan: sigma / alpha goes from "
                f"{max(ratios):.3g} to {min(ratios):.3g}, the guidance interval is {self.interval}",
                stacklevel=2,
            )

    def need(self, image: int, moment: Moment) -> RowNeed:
        """What an image of the batch needs at a moment."""
        low, high = self.interval
        weight = self.weights[image % len(self.weights)]
        if not low < moment.ratio <= high:
            weight = None
        elif isinstance(weight, GuidanceSchedule):
            weight = weight.at(moment)
        return RowNeed(moment, weight, self.method.branches(moment, weight))

    def following(self, plan: Plan | None) -> Guided:
        """This denoiser, its weights as the rows of a tuned plan take them; see `GuidanceSchedule.following`."""
        if plan is None or plan.guidance_factors is None or not isinstance(self.method, CFG):
            return self
        other = copy.copy(self)
        other.weights = [GuidanceSchedule.following(w, plan) for w in self.weights]
        other.needs_run = self.network.needs_run or any(map(by_row, other.weights))
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
        images = range(len(x))
        needs = self._needs(len(x), level)
        outputs = self._outputs(x, level, {POSITIVE: images, NEGATIVE: images})
        weights = [1.0 if need.weight is None else need.weight for need in needs]
        weight = 1 + (column(weights, x) - 1) * factor.to(x)
        skip, out = self.coefficients_at(level)
        state = BatchState(x, skip, out, [need.moment for need in needs], weights)
        return skip * x + out * self.method.combine(outputs, weight, state, None)[0]

    def _needs(self, batch: int, level: Level) -> list[RowNeed]:
        """One for all images or one for each."""
        moments, count = level.moments, len(self.weights)
        if count not in (1, batch):
            raise InvalidInput(f"guidance scales must be one for all or one for each of {batch} images, got {count}")
        return [self.need(i, moments[i % len(moments)]) for i in range(max(count, len(moments)))]

    def _guided(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """(data, raw) of the batch, in the network's output: images of the same branches are combined at once."""
        needs = self._needs(len(x), level)
        groups: dict[tuple[str, ...], list[int]] = {}
        images: dict[str, list[int]] = {}
        for i in range(len(x)):
            branches = needs[i % len(needs)].branches
            groups.setdefault(branches, []).append(i)
            for branch in branches:
                images.setdefault(branch, []).append(i)
        outputs = self._outputs(x, level, images)
        parts = []
        for branches, members in groups.items():
            own = {name: _found(outputs[name], images[name], members) for name in branches}
            theirs = needs if len(needs) == 1 else [needs[i] for i in members]
            parts.append(self._combined(own, members, theirs, x, level))
        if len(parts) == 1:
            return parts[0]
        order = torch.tensor([i for members in groups.values() for i in members], device=x.device).argsort()
        data = torch.cat([part for part, _ in parts])[order]
        same = all(raw is part for part, raw in parts)
        return data, data if same else torch.cat([raw for _, raw in parts])[order]

    def _outputs(self, x: Tensor, level: Level, images: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
        """The output of each branch over its images: one call of the network, and one of the weaker one."""
        conditions = {POSITIVE: self.condition, NEGATIVE: self.negative, PERTURBED: self.condition}
        own = [branch for branch in conditions if branch in images]
        found: dict[str, Tensor] = {}
        if own:
            together = [i for branch in own for i in images[branch]]
            condition = _joined([(conditions[branch], images[branch]) for branch in own], len(x))
            network = self.network.given(condition)
            broken = len(images.get(PERTURBED, ()))
            with perturbed(self.layers, len(together), broken) if broken else nullcontext():
                output = network.output(picked(x, together), level.take(together))
            found = dict(zip(own, output.split([len(images[branch]) for branch in own]), strict=True))
        if WEAK in images and self.weaker is not None:
            some = images[WEAK]
            weaker = self.weaker.given(_joined([(self.weaker.condition, some)], len(x)))
            found[WEAK] = weak_output(self.network, weaker, picked(x, some), level.take(some))
        return found

    def _combined(
        self, outputs: Outputs, images: Sequence[int], needs: Sequence[RowNeed], x: Tensor, level: Level
    ) -> tuple[Tensor, Tensor]:
        """(data, raw) of images that need the same branches."""
        x, level = picked(x, images), level.take(images)
        past, memory = self._memory, None
        if past and not past.keys().isdisjoint(images):
            memory = torch.stack([past[i] if i in past else torch.zeros_like(x[0]) for i in images])
        moments, weights = [need.moment for need in needs], [need.weight for need in needs]
        state = BatchState(x, *self.coefficients_at(level), moments, weights)
        data, raw, memory = self.method.guide(outputs, state, memory)
        if past is not None and memory is not None:
            past.update(zip(images, memory, strict=True))
        return data, raw


def _fitting(condition: Mapping[str, Any], negative: Mapping[str, Any]) -> dict[str, Any]:
    """`negative`; raises `InvalidInput` unless the two branches can share one call of the network."""
    if condition.keys() != negative.keys():
        raise InvalidInput(
            f"condition and negative must name the same arguments, got {sorted(condition)} and {sorted(negative)}"
        )
    for name, value in condition.items():
        other, tensor = negative[name], isinstance(value, Tensor)
        if tensor != isinstance(other, Tensor) or (not tensor and value is not other and value != other):
            raise InvalidInput(
                f"argument {name!r} differs between condition and negative, and is not a tensor in both: the two "
                "branches share one call of the network, so only tensors with the batch first may differ"
            )
    return dict(negative)


def _found(output: Tensor, places: Sequence[int], images: Sequence[int]) -> Tensor:
    """The rows of a branch's output, which is over `places`, for some images of them."""
    if len(places) == len(images):
        return output
    where = {place: i for i, place in enumerate(places)}
    return picked(output, [where[i] for i in images])


def _joined(branches: Sequence[tuple[Mapping[str, Any], Sequence[int]]], batch: int) -> dict[str, Any]:
    """The conditions of branches one after the other, of each the rows of its images.

    A single branch of the whole batch has its condition as it is, so that it is the network under it bit for bit.
    """
    condition, images = branches[0]
    joined = dict(condition)
    if len(branches) == 1 and len(images) == batch:
        return joined
    for name, value in condition.items():
        if isinstance(value, Tensor):
            joined[name] = torch.cat([_rows(name, own[name], images, batch) for own, images in branches])
    return joined


def _rows(name: str, value: Tensor, images: Sequence[int], batch: int) -> Tensor:
    """The rows of an argument for some images of the batch."""
    if value.ndim < 1 or value.shape[0] not in (1, batch):
        raise InvalidInput(
            f"condition {name!r} has shape {tuple(value.shape)}, its first size must be 1 or the batch, {batch}"
        )
    if value.shape[0] == 1:
        return value.expand(len(images), *value.shape[1:])
    return picked(value, images)
