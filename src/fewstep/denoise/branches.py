"""One call of a network for several branches of guidance, each over the images that need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.denoise.base import Level
from fewstep.denoise.convert import Network, OnSchedule


class Branch(NamedTuple):
    """A condition, as the network's keyword arguments, and the images of the batch that are evaluated under it."""

    condition: Mapping[str, Any]
    images: Sequence[int]


def evaluate(network: Network, x: Tensor, level: Level, branches: Mapping[str, Branch]) -> dict[str, Tensor]:
    """The network's output for each branch, (images, ..), from one call with the branches one after the other.

    A single branch of the whole batch is the network under that condition, bit for bit.
    """
    batch, parts = x.shape[0], list(branches.values())
    if not parts:
        return {}
    whole = all(len(part.images) == batch for part in parts)
    if whole and len(parts) == 1:
        joint = network.given(parts[0].condition).output(x, level)
    else:
        if whole:
            several, levels = torch.cat([x] * len(parts)), level.repeated(len(parts))
        else:
            images = [i for part in parts for i in part.images]
            index = torch.tensor(images, device=x.device)
            several, levels = x[index], level.take(index, images)
        condition = {name: _joined(name, parts, batch) for name in parts[0].condition}
        joint = network.given(condition).output(several, levels)
    return dict(zip(branches, joint.split([len(part.images) for part in parts]), strict=True))


def _joined(name: str, branches: Sequence[Branch], batch: int) -> Any:
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


def weak_output(network: Network, weaker: Network, x: Tensor, level: Level) -> Tensor:
    """What `network` would say for the data that a weaker network sees; at once where both predict the same."""
    theirs, ours = weaker.schedule, network.schedule
    same = theirs is not None and ours is not None and theirs.fingerprint == ours.fingerprint
    if same and (weaker.prediction, weaker.sigma_data) == (network.prediction, network.sigma_data):
        return weaker.output(x, level)
    other = weaker if same or ours is None else OnSchedule(weaker, ours)
    skip, out = network.coefficients_at(level)
    return (other.estimate(x, level)[1] - skip * x) / out
