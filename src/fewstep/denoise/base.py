"""The contract of a denoiser: `denoiser(x, t)` is an estimate of the data x0 in the noisy state x_t.

Most denoisers are affine in their network's output F, with coefficients that depend on time alone:

    x0 = skip(t) x + out(t) F

They say so by implementing `output` and `coefficients`, and a driver then folds skip and out into the plan's table,
which saves passes over memory. A nonlinear end, such as clipping, is `project`. Where even that is not enough, as in
CFG++, a denoiser sets `affine` to False and implements `estimate`. Any callable `(x, t) -> x0` is a denoiser too.

A denoiser holds no state of a run, so that threads may share it. One that remembers earlier rows, such as guidance with
momentum, gives every run a copy of itself from `begin`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.scale import Moment, moments_of

Value = Any
"""A float, the same for the whole batch; or a tensor (B, 1, ..) that broadcasts against the state."""


class Level(NamedTuple):
    """Where the images of a batch are: one level for all, or one for each.

    Attributes:
        t: (B,) times of the schedule, on the device of the state.
        alpha, sigma: of the state; floats, or tensors (B, 1, ..).
        host: the (t, alpha, sigma) of each image as floats, one for all or one for each, for decisions without a
            device.
        rows: which row of its plan each image is at, one for all or one for each; None where no plan is run.
        ends: where that row takes each image, (t, alpha, sigma) as in `host`, one for all or one for each; None where
            no plan is run.
    """

    t: Tensor
    alpha: Value
    sigma: Value
    host: Sequence[tuple[float, float, float]]
    rows: Sequence[int] | None = None
    ends: Sequence[tuple[float, float, float]] | None = None

    @staticmethod
    def of(schedule: Schedule, x: Tensor, t: Tensor) -> Level:
        """The level of states `x` (B, ..) at times `t`, () or (B,); reads `t` on the host."""
        if t.ndim > 1 or (t.ndim == 1 and t.shape[0] not in (1, x.shape[0])):
            raise InvalidInput(
                f"t must have shape () or ({x.shape[0]},) for states {tuple(x.shape)}, got {tuple(t.shape)}"
            )
        times = t.detach().double().cpu().reshape(-1).numpy()
        rows = zip(times, schedule.alpha(times), schedule.sigma(times), strict=True)
        level = Level.at([(float(a), float(b), float(c)) for a, b, c in rows], x)
        return level._replace(t=t.reshape(-1).expand(x.shape[0]))

    @staticmethod
    def at(
        host: Sequence[tuple[float, float, float]],
        x: Tensor,
        rows: Sequence[int] | None = None,
        ends: Sequence[tuple[float, float, float]] | None = None,
    ) -> Level:
        """The level of states `x` (B, ..) at (t, alpha, sigma), one for all or for each; so are `rows` and `ends`."""
        times = x.new_tensor([row[0] for row in host]).expand(x.shape[0])
        if len(host) == 1:
            return Level(times, host[0][1], host[0][2], host, rows, ends)
        alpha, sigma = (x.new_tensor([row[i] for row in host]).reshape(-1, *[1] * (x.ndim - 1)) for i in (1, 2))
        return Level(times, alpha, sigma, host, rows, ends)

    def towards(self, there: Level) -> Level:
        """This level, in a row that ends at another one."""
        return self._replace(ends=there.host)

    @property
    def moments(self) -> list[Moment]:
        """One for all images or one for each."""
        return moments_of(self.host, self.rows or (None,))

    def take(self, images: Sequence[int]) -> Level:
        """The level of some images of the batch, which may be taken more than once."""
        t, alpha, sigma = picked(self.t, images), picked(self.alpha, images), picked(self.sigma, images)
        host, rows, ends = (_of_images(each, images) for each in (self.host, self.rows, self.ends))
        return Level(t, alpha, sigma, host, rows, ends)


def _of_images(values: Any, images: Sequence[int]) -> Any:
    """Values of some images, which are one for all, one for each, or None."""
    return values if values is None or len(values) == 1 else [values[i] for i in images]


def picked(value: Any, images: Sequence[int]) -> Any:
    """The rows of a tensor (B, ..) for some images; what is not a tensor is the same for all.

    The whole batch, once or several times, needs no index, whose way to the device a CUDA graph cannot record.
    """
    if not isinstance(value, Tensor):
        return value
    times, rest = divmod(len(images), len(value))
    if rest == 0 and list(images) == [*range(len(value))] * times:
        return value if times == 1 else torch.cat([value] * times)
    return value[torch.tensor(images, device=value.device)]


class Denoiser:
    """Base of the denoisers that drivers know; see the module's docstring.

    Attributes:
        schedule: the noise schedule that states and times belong to, or None where the denoiser does not know.
        project: maps an estimate of the data to a better one; None where there is nothing to do.
        needs_run: whether an estimate depends on more than the state and its level: on the number of the row or on
            earlier rows. Such a denoiser is refused where there are no rows, as in `sample_adaptive`.
    """

    schedule: Schedule | None = None
    project: Callable[[Tensor], Tensor] | None = None
    needs_run: bool = False

    @property
    def affine(self) -> bool:
        """Whether the estimate is skip x + out F and no more; drivers then ask for `output` and never `estimate`."""
        return self.project is None

    def output(self, x: Tensor, level: Level) -> Tensor:
        """The network's output for states `x` (B, ..), in the shape and dtype of `x`."""
        raise NotImplementedError

    def coefficients(self, t: Value, alpha: Value, sigma: Value) -> tuple[Value, Value]:
        """(skip, out) of x0 = skip x + out F. Raises `InvalidInput` where the network's output cannot give x0."""
        return 0.0, 1.0

    def coefficients_at(self, level: Level) -> tuple[Value, Value]:
        """`coefficients` at a level: numbers where it is one for all images, else tensors (B, 1, ..)."""
        t = level.t if isinstance(level.alpha, Tensor) else level.host[0][0]
        return self.coefficients(t, level.alpha, level.sigma)

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """(data, raw): the estimate of x0 and the one that solvers take the noise from where they tell them apart (the
        columns of a plan's B); without a projection the same tensor.
        """
        skip, out = self.coefficients_at(level)
        result = self.output(x, level)  # before the sum, so that the network runs with no other state in memory
        raw = skip * x + out * result
        return (raw if self.project is None else self.project(raw)), raw

    def check(self, plan: Plan) -> None:
        """Raise `InvalidInput` where this denoiser cannot be run with `plan`. Drivers ask before a run."""

    def begin(self) -> Denoiser:
        """The denoiser for one run: itself, or a copy with a memory of its own where it remembers earlier rows."""
        return self

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


class Wrapper(Denoiser):
    """A denoiser around another one, `inner`, which answers where the wrapper does not."""

    def __init__(self, denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor]):
        self.inner = as_denoiser(denoiser)
        self.schedule = self.inner.schedule
        self.needs_run = self.inner.needs_run

    @property
    def affine(self) -> bool:
        return self.project is None and self.inner.affine

    def coefficients(self, t: Value, alpha: Value, sigma: Value) -> tuple[Value, Value]:
        return self.inner.coefficients(t, alpha, sigma)

    def output(self, x: Tensor, level: Level) -> Tensor:
        return self.inner.output(x, level)

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        data, raw = self.inner.estimate(x, level)
        return (data if self.project is None else self.project(data)), raw

    def check(self, plan: Plan) -> None:
        self.inner.check(plan)

    def begin(self) -> Denoiser:
        inner = self.inner.begin()
        if inner is self.inner:
            return self
        other = copy.copy(self)
        other.inner = inner
        return other


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
