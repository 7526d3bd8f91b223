"""From two networks to the changes between them, as small as a number of bytes allows.

The change of a layer's weight, as a matrix (out, in x height x width), is cut to its largest singular values: of all
matrices of a rank that is the nearest in the Frobenius norm (Eckart & Young 1936). Over the layers, singular values are
taken by the square that each removes from the error for its bytes, the best first. That is within one singular value
of the least error for the bytes. What is not the weight of a layer, such as a bias, is small and kept whole.

That is for changes whose singular values fall. Muon makes them equal, and a change of full rank that is cut to a part
of its rank is another change: then 8 bits a number are smaller and far nearer.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.models.lowrank import Changes, LowRank, is_layer
from fewstep.models.rounded import Rounded

FILES, TENSOR, LAYER, NAMED = 800, 130, 400, 5
"""Bytes of headers at most: of both files, of a tensor kept whole, and of a layer, which is named five times."""


class Cut(NamedTuple):
    """The singular value decomposition of a change, (out, n) (n,) (n, in), and the bytes of each of its values."""

    u: Tensor
    values: Tensor
    v: Tensor
    shape: tuple[int, ...]
    price: int


@torch.no_grad()
def lora_of(base: nn.Module, tuned: nn.Module, max_bytes: int, dtype: torch.dtype = torch.float16) -> Changes:
    """The changes from a network to a tuned one of the same shape, in files of at most `max_bytes` in all.

    Args:
        dtype: of what is kept; float16 rounds each change to about 1 / 2,000 of itself.

    Raises:
        InvalidInput: the networks differ in their tensors, a difference is not finite, or what has to be kept whole
            is larger already.
    """
    size = torch.empty(0, dtype=dtype).element_size()
    weights = {f"{name}.weight": name for name, layer in base.named_modules() if is_layer(layer)}
    whole: dict[str, Tensor] = {}
    cuts: dict[str, Cut] = {}
    for name, difference in differences_of(base, tuned).items():
        if name in weights:
            cuts[weights[name]] = cut_of(difference, size)
        else:
            whole[name] = difference.to(dtype)
    left = max_bytes - FILES - sum(TENSOR + len(name) + size * tensor.numel() for name, tensor in whole.items())
    if left < 0:
        raise InvalidInput(
            f"what has to be kept whole takes {max_bytes - left:,} bytes, and max_bytes is {max_bytes:,}: give more"
        )
    ranks = ranks_of(cuts, left)
    return Changes({name: low_rank_of(cuts[name], rank, dtype) for name, rank in ranks.items() if rank}, whole)


@torch.no_grad()
def rounded_of(base: nn.Module, tuned: nn.Module) -> Changes:
    """The changes from a network to a tuned one of the same shape, in about 8 bits a weight, of whatever rank.

    What has one dimension, such as a bias, is kept in float16. Raises `InvalidInput` as `lora_of`.
    """
    found = differences_of(base, tuned)
    return Changes(
        whole={name: tensor.half() for name, tensor in found.items() if tensor.ndim < 2},
        rounded={name: Rounded.of(tensor) for name, tensor in found.items() if tensor.ndim > 1},
    )


def differences_of(base: nn.Module, tuned: nn.Module) -> dict[str, Tensor]:
    """What differs between the tensors of two networks, float64 on the host.

    Raises `InvalidInput` where the networks differ in their tensors, or a difference is not finite.
    """
    ours, theirs = tensors_of(base), tensors_of(tuned)
    if {name: t.shape for name, t in ours.items()} != {name: t.shape for name, t in theirs.items()}:
        differing = sorted(set(ours) ^ set(theirs))[:3] or [n for n in ours if ours[n].shape != theirs[n].shape][:3]
        raise InvalidInput(f"the two networks are not of one shape: they differ in {', '.join(differing)}")
    found = {name: theirs[name].double() - tensor.double() for name, tensor in ours.items()}
    for name, difference in found.items():
        if not bool(difference.isfinite().all()):
            raise InvalidInput(f"{name} of the two networks has a difference that is not finite: train it again")
    return {name: difference for name, difference in found.items() if difference.any()}


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The weights and buffers of a network that are numbers, on the host."""
    found: Any = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    return {name: tensor.detach().cpu() for name, tensor in found.items() if tensor.is_floating_point()}


def cut_of(difference: Tensor, size: int) -> Cut:
    """The decomposition of a change (out, in, ..), without what rounding of float32 has left of nothing."""
    u, values, v = torch.linalg.svd(difference.flatten(1), full_matrices=False)
    noise = max(u.shape[0], v.shape[1]) * torch.finfo(torch.float32).eps * values[0]
    n = int((values > noise).sum())
    price = size * (u.shape[0] + v.shape[1])
    return Cut(u[:, :n], values[:n], v[:n], tuple(difference.shape[1:]), price)


def ranks_of(cuts: dict[str, Cut], max_bytes: int) -> dict[str, int]:
    """How many singular values of each change fit, the best for their bytes first."""
    offers = [
        (float(value) ** 2 / cut.price, name, place)
        for name, cut in cuts.items()
        for place, value in enumerate(cut.values)
    ]
    ranks, full = dict.fromkeys(cuts, 0), set[str]()
    left = max_bytes
    for _, name, place in sorted(offers, key=lambda offer: (-offer[0], offer[1], offer[2])):
        price = cuts[name].price + (0 if place else LAYER + NAMED * len(name))
        if name in full or price > left:
            full.add(name)  # its smaller values alone would be another matrix
            continue
        ranks[name], left = place + 1, left - price
    return ranks


def low_rank_of(cut: Cut, rank: int, dtype: torch.dtype) -> LowRank:
    """The first singular values of a change, each shared out evenly between both sides."""
    root = cut.values[:rank].sqrt()
    down = (root[:, None] * cut.v[:rank]).reshape(rank, *cut.shape)
    up = (cut.u[:, :rank] * root).reshape(-1, rank, *[1] * (len(cut.shape) - 1))
    return LowRank(down.to(dtype), up.to(dtype))


def error_of(base: nn.Module, tuned: nn.Module, changes: Changes) -> float:
    """How much of the difference between two networks their changes leave, in the Frobenius norm, from 0 to 1."""
    kept = changes.differences() | {f"{name}.weight": one.product() for name, one in changes.low_rank.items()}
    lost, total = 0.0, 0.0
    for name, difference in differences_of(base, tuned).items():
        left = difference - kept[name] if name in kept else difference
        lost, total = lost + float(left.square().sum()), total + float(difference.square().sum())
    return math.sqrt(lost / total) if total else 0.0
