"""One call of a network for several branches of guidance, each over the images that need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Denoiser, Level, Value
from fewstep.denoise.convert import Network
from fewstep.denoise.scale import EVERYWHERE, Scale, Weight, column


class Branch(NamedTuple):
    """A condition, as the network's keyword arguments, and the images of the batch that are evaluated under it."""

    condition: Mapping[str, Any]
    images: Sequence[int]


def evaluate(network: Network, x: Tensor, level: Level, branches: Sequence[Branch]) -> list[Tensor]:
    """The network's outputs for each branch, (images, ..) each, from one call with the branches one after the other.

    A single branch of the whole batch is the network under that condition, bit for bit.
    """
    batch = x.shape[0]
    busy = [branch for branch in branches if branch.images]
    if len(busy) == 1 and len(busy[0].images) == batch:
        joint = network.given(busy[0].condition).output(x, level)
    else:
        images = [i for branch in busy for i in branch.images]
        if all(len(branch.images) == batch for branch in busy):
            index, several, levels = None, torch.cat([x] * len(busy)), level.repeated(len(busy))
        else:
            index = torch.tensor(images, device=x.device)
            several, levels = x[index], level.take(index, images)
        condition = {name: _joined(name, busy, batch, x.device) for name in busy[0].condition}
        joint = network.given(condition).output(several, levels)
    return list(joint.split([len(branch.images) for branch in branches]))


def _joined(name: str, branches: Sequence[Branch], batch: int, device: torch.device) -> Any:
    """The argument `name` of all branches, its rows picked for their images."""
    if not isinstance(branches[0].condition[name], Tensor):
        return branches[0].condition[name]
    return torch.cat([picked(name, branch.condition[name], branch.images, batch) for branch in branches])


def picked(name: str, value: Any, images: Sequence[int], batch: int) -> Any:
    """The rows of a condition's tensor for some images of the batch; what is no tensor is everybody's."""
    if not isinstance(value, Tensor):
        return value
    if value.ndim < 1 or value.shape[0] not in (1, batch):
        raise InvalidInput(
            f"condition {name!r} has shape {tuple(value.shape)}, its first size must be 1 or the batch, {batch}"
        )
    if value.shape[0] == 1:
        return value.expand(len(images), *value.shape[1:])
    return value if len(images) == batch else value[torch.tensor(images, device=value.device)]


def check_conditions(condition: Mapping[str, Any], negative: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` unless the two branches can share one call of the network."""
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


def check_network(network: Any) -> Network:
    """`network`; raises `InvalidInput` unless it is a `Network`."""
    if not isinstance(network, Network):
        raise InvalidInput(
            f"guidance needs a fewstep.Network, whose condition it sets, got {type(network).__name__}: build "
            "fewstep.Network(module, schedule, prediction), and put clip or OnSchedule around the guided denoiser"
        )
    return network


class Guidance(Denoiser):
    """Base of guidance by two outputs of a network: F_c, of all images, and F_n, of the images whose weight is not
    `off`, the one that does nothing.

    As x0 is affine in F with the same coefficients in both, guiding F guides x0. A method says how in `combine`.
    """

    def __init__(
        self,
        network: Network,
        scale: Weight | Sequence[Weight],
        interval: tuple[float, float] = EVERYWHERE,
        off: float = 1.0,
    ):
        self.network = check_network(network)
        self.schedule = network.schedule
        self.scale = Scale(scale, interval, off)
        self.needs_run = self.scale.by_row

    def coefficients(self, t: Value, alpha: Value, sigma: Value) -> tuple[Value, Value]:
        return self.network.coefficients(t, alpha, sigma)

    def check(self, plan: Plan) -> None:
        self.scale.check(plan)

    def alone(self, x: Tensor, level: Level) -> Tensor:
        """F_c of the batch."""
        raise NotImplementedError

    def both(self, x: Tensor, level: Level, images: Sequence[int]) -> tuple[Tensor, Tensor]:
        """F_c of the batch and F_n of the `images`, one or more."""
        raise NotImplementedError

    def combine(
        self, conditional: Tensor, negative: Tensor, weight: Value, x: Tensor, level: Level, images: Sequence[int]
    ) -> Tensor:
        """The guided output of the `images` of the batch that are guided; the other arguments are of them alone."""
        raise NotImplementedError

    def output(self, x: Tensor, level: Level) -> Tensor:
        batch = x.shape[0]
        weights = self.scale.weights(batch, level)
        images = [i for i, w in enumerate(weights) if w != self.scale.off]
        if not images:
            return self.alone(x, level)
        conditional, negative = self.both(x, level, images)
        weight = column([weights[i] for i in images], x)
        if len(images) == batch:
            return self.combine(conditional, negative, weight, x, level, images)
        index = torch.tensor(images, device=x.device)
        guided = self.combine(conditional[index], negative, weight, x[index], level.take(index, images), images)
        return conditional.index_copy(0, index, guided)


class ConditionGuidance(Guidance):
    """Base of guidance from a negative condition of the same network.

    Args:
        network: the network; its own condition is replaced.
        condition, negative: keyword arguments for the two branches; tensors have the batch first, in both the same
            keys.
        scale: w, a number or a `GuidanceSchedule`, one for all images or one for each; 1 is the conditional model
            alone, at one evaluation.
        interval: (low, high) in sigma / alpha; guidance acts for low < sigma / alpha <= high only (Kynkaanniemi et al.
            2024, arXiv 2404.07724).
    """

    def __init__(
        self,
        network: Network,
        condition: Mapping[str, Any],
        negative: Mapping[str, Any],
        scale: Weight | Sequence[Weight],
        interval: tuple[float, float] = EVERYWHERE,
        off: float = 1.0,
    ):
        check_conditions(condition, negative)
        super().__init__(network, scale, interval, off)
        self.condition, self.negative = dict(condition), dict(negative)

    def alone(self, x: Tensor, level: Level) -> Tensor:
        return self.network.given(self.condition).output(x, level)

    def both(self, x: Tensor, level: Level, images: Sequence[int]) -> tuple[Tensor, Tensor]:
        parts = [Branch(self.condition, range(x.shape[0])), Branch(self.negative, images)]
        conditional, negative = evaluate(self.network, x, level, parts)
        return conditional, negative
