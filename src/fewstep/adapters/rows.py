"""A plan run by a host, one network evaluation a call: the host calls the network, and may edit the sample in between.

So register 0 is always the sample that the host shows; the other registers are the run's memory, in tensors of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewstep.core import Float, InvalidInput, Plan, Schedule
from fewstep.run import DATA, NOISE, RAW, combinations
from fewstep.solvers import SAMPLERS, compile, solver_of

Call = tuple[Plan, int] | None
"""The row of a plan that a call of the host is; None where the call has no effect."""

SUBSTITUTE = "ipndm-4"
"""Takes the rest of the times where a sampler cannot begin: what PNDM is after its warm-up."""


@lru_cache(maxsize=256)
def compiled(sampler: str, schedule: Schedule, times: tuple[float, ...], options: tuple[tuple[str, Any], ...]) -> Plan:
    """`fewstep.compile`, remembered: a server compiles the same few plans again and again."""
    return compile(sampler, schedule=schedule, times=times, **{k: _thawed(v) for k, v in options})


def frozen(options: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Options as a key of `compiled`."""
    return tuple(sorted((k, tuple(v) if isinstance(v, list | tuple) else v) for k, v in options.items()))


def _thawed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def calls_from(plan: Plan, schedule: Schedule, begin: int) -> list[Call]:
    """What the calls of a host are that begins at row `begin` of `plan`, with no history.

    They are the rows of a plan compiled on the rest of the grid. Where the host begins inside a step, DDIM goes to the
    step's end first, and the remaining evaluations of that step have no effect. Where a sampler has no rows at the
    times that the host has announced (PNDM begins with another number of evaluations), `SUBSTITUTE` takes them.
    """
    if begin == 0:
        return _all(plan)
    times, told = np.array(plan.recipe.times), [row.t for row in plan.rows]
    ended = [i + 1 for i, row in enumerate(plan.rows) if row.ends_step]
    at = told[begin]
    starts = [int(np.argmax(times <= at + 1e-9))]
    if begin in ended:
        starts.insert(0, ended.index(begin) + 1)
    for k in starts:
        tail = _tail(plan, schedule, times[k:])
        if tail is not None and _same(told[begin:], tail):
            return _all(tail)
    if begin in ended:
        return _substituted(plan, schedule, begin)
    stop = next(i for i in ended if i > begin)
    end = told[stop] if stop < len(plan.rows) else float(times[-1])
    bridge: list[Call] = [None] * (stop - begin)
    if at > end:
        bridge[0] = compiled("ddim", schedule, (at, end), ()), 0
    return bridge + (calls_from(plan, schedule, stop) if stop < len(plan.rows) else [])


def _all(plan: Plan) -> list[Call]:
    return [(plan, i) for i in range(len(plan.rows))]


def _same(told: Sequence[float], tail: Plan) -> bool:
    times = [row.t for row in tail.rows]
    return len(told) == len(times) and bool(np.allclose(told, times, rtol=1e-9, atol=1e-9))


def _tail(plan: Plan, schedule: Schedule, times: Float) -> Plan | None:
    """The sampler of `plan` on the rest of its grid; None where there is no rest or it cannot be run there."""
    if len(times) < 2:
        return None
    options = dict(plan.recipe.options)
    if plan.recipe.sampler not in SAMPLERS:
        raise InvalidInput(
            f"a plan of {plan.recipe.sampler!r} was made for the whole of its times, and has no rows that begin in the "
            "middle: use from_config with a sampler for image-to-image"
        )
    defaults = solver_of(plan.recipe.sampler)[1]
    if "s_churn" in defaults:  # the noise of a step is that of the whole grid, which has more steps
        churn = options.get("s_churn", defaults["s_churn"])
        options["s_churn"] = churn * (len(times) - 1) / plan.steps
    try:
        return compiled(plan.recipe.sampler, schedule, tuple(map(float, times)), frozen(options))
    except InvalidInput:
        return None


def _substituted(plan: Plan, schedule: Schedule, begin: int) -> list[Call]:
    """`SUBSTITUTE` over the announced times as far as they decrease; calls at other times have no effect."""
    told = [row.t for row in plan.rows][begin:]
    keep = [i for i, t in enumerate(told) if i == 0 or t < min(told[:i])]
    times = (*(told[i] for i in keep), min(plan.recipe.times[-1], min(told) - 1e-13))
    rows = compiled(SUBSTITUTE, schedule, times, ())
    return [(rows, keep.index(i)) if i in keep else None for i in range(len(told))]


Coefficients = Callable[[float, float, float], tuple[float, float]]


class Registers:
    """The memory of one run: everything of a plan's bank but register 0."""

    def __init__(self) -> None:
        self.bank: list[Tensor | None] = []

    def check(self, sample: Tensor) -> None:
        """Raise `InvalidInput` where `sample` has not the shape of what is remembered."""
        if self.bank and self.bank[0] is not None and self.bank[0].shape != sample.shape:
            raise InvalidInput(
                f"the sample has shape {tuple(sample.shape)}, the run began with {tuple(self.bank[0].shape)}: a run "
                "keeps its shape, so call set_timesteps before another batch"
            )

    def advance(
        self,
        call: Call,
        output: Tensor,
        sample: Tensor,
        coefficients: Coefficients,
        project: Callable[[Tensor], Tensor] | None,
        noise: Callable[[], Tensor],
        reclip: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The sample after one call and the estimate of the data, both new tensors in the dtype of `sample`.

        Arithmetic is in float32, or in float64 where the sample is. `noise` gives unit noise like the sample, and is
        called only where the row draws some. With `reclip` the noise in the sample follows from the projected data.
        """
        if call is None:
            return sample.clone(), sample.clone()
        plan, i = call
        row = plan.rows[i]
        dtype = torch.float64 if sample.dtype == torch.float64 else torch.float32
        x, f = sample.to(dtype), output.to(sample.device, dtype)
        if i == 0:
            self.bank = _initial(plan, x)
        self.bank[0] = x
        skip, out = coefficients(row.t, row.alpha, row.sigma)
        data = x * skip + f * out
        sources: dict[int, Tensor | None] = dict(enumerate(self.bank))
        if project is None:
            sources[DATA] = f
        else:
            projected = project(data)
            sources |= {RAW: projected if reclip else data, DATA: projected}
            data = projected
        if row.noise is not None:
            sources[NOISE] = noise().to(dtype)
        self.bank = [_sum(terms, sources) for terms in combinations(plan, i, (skip, out) if project is None else None)]
        result = self.bank[0]
        if result is None:
            result = torch.zeros_like(x)
        if i == len(plan.rows) - 1:
            self.bank = []
            if plan.exit[1] == 0:
                data = result
        assert data is not None
        return result.to(sample.dtype), data.to(sample.dtype, copy=data is result)


def _initial(plan: Plan, x: Tensor) -> list[Tensor | None]:
    """The bank before the first row, where R[0] is `x`; noise that a plan starts with is in the host's own."""
    if plan.inputs != 1 or not np.allclose(plan.init * plan.init[0, 0], np.outer(plan.init[:, 0], plan.init[0])):
        raise InvalidInput(f"{plan.recipe.sampler} starts from two states here, and a pipeline of diffusers has one")
    factors = plan.init[:, 0] / plan.init[0, 0]
    return [x * float(c) if c else None for c in factors]


def _sum(terms: dict[int, float], sources: dict[int, Tensor | None]) -> Tensor | None:
    total: Tensor | None = None
    for source, c in terms.items():
        value = sources[source]
        if value is not None:
            total = value * c if total is None else total.add_(value, alpha=c)
    return total
