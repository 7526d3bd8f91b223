"""The contract of a denoiser: `denoiser(x, t)` is an estimate of the data x0 in the noisy state x_t.

Most denoisers are affine in their network's output F, with coefficients that depend on time alone:

    x0 = skip(t) x + out(t) F

They say so by implementing `output` and `coefficients`, and a driver then folds skip and out into the plan's table,
which saves passes over memory. A nonlinear end, such as clipping, is `project`. Any callable `(x, t) -> x0` is a
denoiser too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Schedule

Value = Any
"""A float, the same for the whole batch; or a tensor (B, 1, ..) that broadcasts against the state."""


class Level(NamedTuple):
    """Where the images of a batch are: one level for all, or one for each.

    Attributes:
        t: (B,) times of the schedule, on the device of the state.
        alpha, sigma: of the state; floats, or tensors (B, 1, ..).
        host: the (t, alpha, sigma) of each image as floats, one for all or one for each, for decisions without a
            device.
    """

    t: Tensor
    alpha: Value
    sigma: Value
    host: Sequence[tuple[float, float, float]]

    @staticmethod
    def of(schedule: Schedule, x: Tensor, t: Tensor) -> Level:
        """The level of states `x` (B, ..) at times `t`, () or (B,); reads `t` on the host."""
        if t.ndim > 1 or (t.ndim == 1 and t.shape[0] not in (1, x.shape[0])):
            raise InvalidInput(
                f"t must have shape () or ({x.shape[0]},) for states {tuple(x.shape)}, got {tuple(t.shape)}"
            )
        times = t.detach().double().cpu().reshape(-1).numpy()
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        host = [(float(a), float(b), float(c)) for a, b, c in zip(times, alpha, sigma, strict=True)]
        if len(host) == 1:
            return Level(t.reshape(-1).expand(x.shape[0]), host[0][1], host[0][2], host)
        shape = (-1,) + (1,) * (x.ndim - 1)
        alpha, sigma = (torch.as_tensor(v, dtype=x.dtype, device=x.device).reshape(shape) for v in (alpha, sigma))
        return Level(t, alpha, sigma, host)

    def take(self, index: Tensor, host: Sequence[int]) -> Level:
        """The level of the images at `index`, which the host knows as `host`."""
        alpha, sigma = (v[index] if isinstance(v, Tensor) else v for v in (self.alpha, self.sigma))
        rows = self.host if len(self.host) == 1 else [self.host[i] for i in host]
        return Level(self.t[index], alpha, sigma, rows)

    def doubled(self, index: Tensor, host: Sequence[int]) -> Level:
        """This level, followed by that of the images at `index`."""
        other = self.take(index, host)
        alpha, sigma = (
            torch.cat([a, b]) if isinstance(a, Tensor) else a
            for a, b in ((self.alpha, other.alpha), (self.sigma, other.sigma))
        )
        rows = self.host if len(self.host) == 1 else [*self.host, *other.host]
        return Level(torch.cat([self.t, other.t]), alpha, sigma, rows)


class Denoiser:
    """Base of the denoisers that drivers know; see the module's docstring.

    `schedule` is the noise schedule that states and times belong to, or None where the denoiser does not know.
    `project` maps an estimate of the data to a better one and is None where there is nothing to do.
    """

    schedule: Schedule | None = None
    project: Callable[[Tensor], Tensor] | None = None

    def output(self, x: Tensor, level: Level) -> Tensor:
        """The network's output for states `x` (B, ..), in the shape and dtype of `x`."""
        raise NotImplementedError

    def coefficients(self, t: Value, alpha: Value, sigma: Value) -> tuple[Value, Value]:
        """(skip, out) of x0 = skip x + out F. Raises `InvalidInput` where the network's output cannot give x0."""
        return 0.0, 1.0

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """The estimate of x0 and the one before `project`, which may be the same tensor."""
        t = level.t if isinstance(level.alpha, Tensor) else level.host[0][0]
        skip, out = self.coefficients(t, level.alpha, level.sigma)
        raw = skip * x + out * self.output(x, level)
        return (raw if self.project is None else self.project(raw)), raw

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        """The estimate of x0 in states `x` (B, ..) at times `t`, a number or a tensor () or (B,) in the schedule's
        time.
        """
        if self.schedule is None:
            raise InvalidInput(f"{type(self).__name__} has no noise schedule, so it cannot be called with a time")
        dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        level = Level.of(self.schedule, x, torch.as_tensor(t, dtype=dtype, device=x.device))
        for row in level.host:  # as numbers, they can be refused
            self.coefficients(*row)
        return self.estimate(x, level)[0]


class Function(Denoiser):
    """Any callable `(x, t) -> x0`, with t a tensor (B,)."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        self.function = function

    def output(self, x: Tensor, level: Level) -> Tensor:
        result = self.function(x, level.t)
        if not isinstance(result, Tensor) or result.shape != x.shape:
            got = f"shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
            raise InvalidInput(f"the denoiser returned {got}, it must return a tensor of the state's {tuple(x.shape)}")
        return result if result.dtype == x.dtype else result.to(x.dtype)

    def __call__(self, x: Tensor, t: Tensor | float) -> Tensor:
        return self.function(x, torch.as_tensor(t, device=x.device))


def as_denoiser(denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor]) -> Denoiser:
    """`denoiser` itself, or a `Function` around a plain callable."""
    if isinstance(denoiser, Denoiser):
        return denoiser
    if not callable(denoiser):
        raise InvalidInput(f"a denoiser is a callable (x, t) -> x0, got {type(denoiser).__name__}")
    return Function(denoiser)
