"""From what a network was trained to predict to the data that it implies.

With x = alpha x0 + sigma eps, each prediction F gives x0 = skip x + out F:

    epsilon         F = eps                          x0 = (x - sigma F) / alpha
    sample          F = x0
    v_prediction    F = alpha eps - sigma x0         x0 = (alpha x - sigma F) / (alpha^2 + sigma^2)
    flow            F = eps - x0                     x0 = (x - sigma F) / (alpha + sigma)
    edm             F preconditioned, r = sigma / alpha, d = sigma_data (Karras et al. 2022, arXiv 2206.00364, table 1):
                    x0 = d^2 / (r^2 + d^2) x / alpha + r d / sqrt(r^2 + d^2) F(x / (alpha sqrt(r^2 + d^2)), log(r) / 4)

Sources: Ho et al. 2020, arXiv 2006.11239; Salimans & Ho 2022, arXiv 2202.00512 (v); Lipman et al. 2022, arXiv
2210.02747 (flow).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.plan import Plan
from fewstep.core.schedule import Schedule
from fewstep.denoise.base import Denoiser, Level, Value, Wrapper
from fewstep.denoise.prediction import PREDICTIONS
from fewstep.denoise.row import NO_ROW, RowFacts, Way

LEAST_ALPHA = 1e-30
"""Below it the data is lost in rounding, and sigma / alpha nears the end of float32."""


class Network(Denoiser):
    """A network, called as `network(x, time, **condition)`, as a denoiser.

    Args:
        network: returns a tensor of the shape of x, or an object whose `.sample` is one, or a tuple that begins with
            one; in memory that its later calls leave alone, as multistep samplers remember it.
        schedule: the noise schedule that it was trained with.
        prediction: one of `PREDICTIONS`.
        condition: keyword arguments of the network, such as labels or embeddings; tensors have the batch first.
        dtype: what the network runs in; its input is cast to it and its output back. None is the dtype of its
            parameters where it is a module, else that of the states.
        time_scale: what a schedule time is multiplied by before the network is told, 1000 for the flow models of
            diffusers; `edm` tells no schedule time.
        integer_time: round the time to an integer first, for networks that look it up in a table.
        sigma_data: standard deviation of the data, for `edm`.
        module: the torch module behind the network, where it is neither that nor a `functools.partial` of it.
        rows: what it knows of the rows of a plan: it is told where they lead, as `r` (B,), or gives several estimates.
    """

    def __init__(
        self,
        network: Callable[..., Any],
        schedule: Schedule,
        prediction: str = "epsilon",
        *,
        condition: Mapping[str, Any] | None = None,
        dtype: torch.dtype | None = None,
        time_scale: float = 1.0,
        integer_time: bool = False,
        sigma_data: float = 0.5,
        module: torch.nn.Module | None = None,
        rows: RowFacts = NO_ROW,
    ):
        if prediction not in PREDICTIONS:
            raise unknown_name("prediction type", prediction, PREDICTIONS)
        if rows.second_time and integer_time:
            raise InvalidInput("a network that looks its times up in a table has no entry for a second one")
        self.network = network
        self.schedule = schedule
        self.prediction = prediction
        self.condition = dict(condition or {})
        self.dtype = _parameter_dtype(network) if dtype is None else dtype
        self.time_scale = time_scale
        self.integer_time = integer_time
        self.sigma_data = sigma_data
        inner = network.args[0] if isinstance(network, partial) and network.args else network
        self.module = inner if module is None and isinstance(inner, torch.nn.Module) else module
        self.rows = rows
        self.needs_run = bool(rows)

    def given(self, condition: Mapping[str, Any]) -> Network:
        """The same network under another condition."""
        other = copy.copy(self)
        other.condition = dict(condition)
        return other

    def coefficients(self, t: Value, alpha: Value, sigma: Value) -> tuple[Value, Value]:
        if self.prediction in ("epsilon", "edm") and isinstance(alpha, float) and alpha < LEAST_ALPHA:
            raise InvalidInput(
                f"a network that predicts {self.prediction} says nothing of the data at time {t:g}, where alpha is "
                f"{alpha:g} (zero terminal SNR): start the grid below it, or use one that predicts v_prediction, flow "
                "or sample"
            )
        match self.prediction:
            case "epsilon":
                return 1 / alpha, -sigma / alpha
            case "sample":
                return 0.0, 1.0
            case "v_prediction":
                return alpha / (alpha**2 + sigma**2), -sigma / (alpha**2 + sigma**2)
            case "flow":
                return 1 / (alpha + sigma), -sigma / (alpha + sigma)
            case _:
                ratio, d = sigma / alpha, self.sigma_data
                norm = ratio**2 + d**2
                return d**2 / norm / alpha, ratio * d / norm**0.5

    def check(self, plan: Plan) -> None:
        self.rows.check(plan)

    def output(self, x: Tensor, level: Level) -> Tensor:
        result = self._called(x, level)
        if self.rows.guesses == 1:
            return result
        each = result.unflatten(1, (self.rows.guesses, -1)).unbind(1)
        weights = Way.of(level.host, level.ends or level.host, self.rows.guesses).weights
        if len(weights) == 1:
            factors: list[Any] = weights[0].tolist()  # which a CUDA graph can record
        else:
            factors = [x.new_tensor(column).reshape(-1, *[1] * (x.ndim - 1)) for column in weights.T]
        total = factors[0] * each[0]
        for factor, guess in zip(factors[1:], each[1:], strict=True):
            total = total + factor * guess
        return total

    def guesses(self, x: Tensor, level: Level) -> Tensor:
        """(B, guesses, ..): the estimates of x0 at the places of the way, the first one's at its beginning."""
        skip, out = (c[:, None] if isinstance(c, Tensor) else c for c in self.coefficients_at(level))
        return skip * x[:, None] + out * self._called(x, level).unflatten(1, (self.rows.guesses, -1))

    def _called(self, x: Tensor, level: Level) -> Tensor:
        """What the network returns, as states: (B, guesses C, ..) for states (B, C, ..)."""
        u, time, dtype = x, level.t, self.dtype
        if self.prediction == "edm":
            ratio = level.sigma / level.alpha
            u = x / (level.alpha * (ratio**2 + self.sigma_data**2) ** 0.5)
            ratio = ratio if isinstance(ratio, Tensor) else torch.full_like(level.t, ratio)
            time = ratio.reshape(-1).log() / 4
        elif self.time_scale != 1:
            time = time * self.time_scale
        if self.integer_time:
            time = time.round().long()
        if dtype is not None:
            u = u.to(dtype)
            if not self.integer_time and dtype is not torch.float64:
                time = time.float()  # and no lower: in bfloat16 750 would be 752
        told = {"r": self._second_time(level, time)} if self.rows.second_time else {}
        result = self.network(u, time, **told, **self.condition)
        if not isinstance(result, Tensor):
            first = result[0] if isinstance(result, tuple) and result else getattr(result, "sample", None)
            if not isinstance(first, Tensor):
                raise InvalidInput(
                    "a network returns a tensor, a tuple that begins with one or an object whose .sample is one; the "
                    f"network returned {type(result).__name__}"
                )
            result = first
        wanted = (len(x), self.rows.guesses * x.shape[1], *x.shape[2:])
        if tuple(result.shape) != wanted:
            many = f"all {self.rows.guesses} guesses have {wanted}"
            equal = "they must be equal" if self.rows.guesses == 1 else many
            raise InvalidInput(
                f"the network returned shape {tuple(result.shape)} for a state of shape {tuple(x.shape)}; {equal}"
            )
        return result if result.dtype is x.dtype else result.to(x.dtype)

    def _second_time(self, level: Level, time: Tensor) -> Tensor:
        """Where rows lead (B,), as the network knows times: not below the least noise where it knows logarithms of
        ratios. Without a plan they lead nowhere, to `time`.
        """
        if level.ends is None or self.schedule is None:
            return time
        if self.prediction == "edm":
            least = float(self.schedule.ratio(self.schedule.t_min))
            ends = [math.log(max(sigma / alpha, least)) / 4 for _, alpha, sigma in level.ends]
        else:
            ends = [t * self.time_scale for t, _, _ in level.ends]
        return torch.full_like(time, ends[0]) if len(ends) == 1 else time.new_tensor(ends)


def _parameter_dtype(network: Callable[..., Any]) -> torch.dtype | None:
    """The dtype of a module's first parameter of float16 or more, as a quantised one says nothing of the input's."""
    parameters = network.parameters() if isinstance(network, torch.nn.Module) else ()
    return next((p.dtype for p in parameters if p.is_floating_point() and p.element_size() >= 2), None)


class OnSchedule(Wrapper):
    """A denoiser in the coordinates of another noise schedule: at the same sigma / alpha, x differs by a factor alone.

    `edm` around a Stable Diffusion network is how k-diffusion samples it.
    """

    def __init__(self, denoiser: Denoiser, schedule: Schedule):
        super().__init__(denoiser)
        if self.inner.schedule is None:
            raise InvalidInput("only a denoiser that knows its own noise schedule can be used on another")
        self.own = self.inner.schedule
        self.schedule = schedule

    def _factor(self, level: Level, x: Tensor) -> tuple[Level, Value]:
        rows, factors = [], []
        for t, alpha, sigma in level.host:
            own_t, factor = self._own(t, alpha, sigma)
            rows.append((own_t, float(self.own.alpha(own_t)), float(self.own.sigma(own_t))))
            factors.append(factor)
        times = level.t.new_tensor([row[0] for row in rows]).expand(x.shape[0])
        ends = None if level.ends is None else [self._end(*end) for end in level.ends]
        own = Level.at(rows, x, level.rows, ends)._replace(t=times)
        return own, factors[0] if len(rows) == 1 else x.new_tensor(factors).reshape(-1, *[1] * (x.ndim - 1))

    def _own(self, t: float, alpha: float, sigma: float) -> tuple[float, float]:
        if alpha == 0:
            raise InvalidInput(
                f"at time {t:g} alpha is 0, a level that the network's {self.own.kind} schedule cannot be scaled to"
            )
        own_t = float(self.own.time_of_lambda(math.log(alpha / sigma)))
        return own_t, float(self.own.alpha(own_t)) / alpha

    def _end(self, t: float, alpha: float, sigma: float) -> tuple[float, float, float]:
        """Where a row ends, on the network's own schedule; beyond its noisiest time, where no row begins, that."""
        lam = math.inf if sigma == 0 else math.log(alpha / sigma) if alpha > 0 else -math.inf
        noisiest = lam <= float(self.own.lam(self.own.t_max))
        own_t = self.own.t_max if noisiest else float(self.own.time_of_lambda(lam))
        return own_t, float(self.own.alpha(own_t)), float(self.own.sigma(own_t))

    def coefficients(self, t: Value, alpha: Value, sigma: Value) -> tuple[Value, Value]:
        if isinstance(alpha, Tensor):
            levels = [self._own(*row) for row in zip(*(v.flatten().tolist() for v in (t, alpha, sigma)), strict=True)]
            own_t = t.new_tensor([row[0] for row in levels])
            factor = alpha.new_tensor([row[1] for row in levels]).reshape(alpha.shape)
            skip, out = self.inner.coefficients(own_t, factor * alpha, factor * sigma)
            return skip * factor, out
        own_t, factor = self._own(float(t), alpha, sigma)
        skip, out = self.inner.coefficients(own_t, float(self.own.alpha(own_t)), float(self.own.sigma(own_t)))
        return skip * factor, out

    def output(self, x: Tensor, level: Level) -> Tensor:
        own, factor = self._factor(level, x)
        return self.inner.output(factor * x, own)

    def estimate(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        own, factor = self._factor(level, x)
        return self.inner.estimate(factor * x, own)


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
