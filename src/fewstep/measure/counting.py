"""Network evaluations as the networks themselves see them, whatever wraps them.

A guided row may evaluate the network once, twice or three times, for some images of a batch and not for others. So
nothing is assumed: a copy of the denoiser, its networks replaced by ones that count the images they are given.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import Tensor

from fewstep.denoise.base import Denoiser, Function, Level, Wrapper, as_denoiser
from fewstep.denoise.convert import Network


class Count:
    """`images`: how many images networks were evaluated on."""

    def __init__(self) -> None:
        self.images = 0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, counted; its first argument has the images first."""

        def counting(x: Tensor, *rest: Any, **named: Any) -> Any:
            self.images += x.shape[0]
            return function(x, *rest, **named)

        return counting


class _Whole(Wrapper):
    """Counts a denoiser that holds no network to be seen: one evaluation an image and row."""

    def __init__(self, denoiser: Denoiser, count: Count):
        super().__init__(denoiser)
        self.count = count

    def output(self, x: Tensor, level: Level) -> Tensor:
        self.count.images += x.shape[0]
        return self.inner.output(x, level)

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        self.count.images += x.shape[0]
        return self.inner.estimate(x, level)


def counted(denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor]) -> tuple[Denoiser, Count]:
    """A copy of `denoiser` that computes the same, and the `Count` of its evaluations. The original is left alone."""
    count, copies = Count(), {}
    whole = as_denoiser(denoiser)
    result = _copied(whole, count, copies)
    if not any(isinstance(leaf, Network | Function) for leaf in copies.values()):
        return _Whole(whole, count), count
    return result, count


def _copied(denoiser: Denoiser, count: Count, copies: dict[int, Denoiser]) -> Denoiser:
    if id(denoiser) in copies:
        return copies[id(denoiser)]
    copies[id(denoiser)] = own = copy.copy(denoiser)
    if isinstance(own, Network):
        own.network = count.around(own.network)
    elif isinstance(own, Function):
        own.function = count.around(own.function)
    for name, value in list(vars(own).items()):
        if isinstance(value, Denoiser):
            setattr(own, name, _copied(value, count, copies))
    return own
