"""`timesteps` that a pipeline may cut short: only where a step ends.

Pipelines end a run early (`denoising_end` of SDXL) by cutting the list of times that the network is told. Inside a step
of two evaluations the state is that step's inner one, and nobody finishes it. The pipelines that go on from there
(`denoising_start`) begin with the whole step, so the cut moves back to where the step begins. `[:1]` is the first time,
at which pipelines put noise on a picture.
"""

from __future__ import annotations

from typing import Any

from torch import _C, Tensor

from fewstep.core import InvalidInput, Plan


class Timesteps(Tensor):
    """(n,), the times of a plan that has steps of several evaluations. Everything but a cut gives plain tensors."""

    ends: tuple[int, ...]
    sampler: str
    __torch_function__ = _C._disabled_torch_function_impl  # type: ignore[assignment]

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) and index.stop is not None and index.step in (None, 1):
            start, stop, _ = index.indices(len(self))
            index = slice(start, max(start, self._cut(stop)))
        return self.as_subclass(Tensor)[index]

    def __deepcopy__(self, memo: Any) -> Tensor:
        return self.as_subclass(Tensor).clone()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.as_subclass(Tensor).__reduce_ex__(protocol)

    def _cut(self, stop: int) -> int:
        if stop in (0, 1, *self.ends):
            return stop
        before = max((end for end in self.ends if end < stop), default=0)
        after = min((end for end in self.ends if end > stop), default=len(self))
        if before == 0 or after - before != 2:
            begins = [round(float(self.as_subclass(Tensor)[end]), 3) for end in self.ends if end < len(self)]
            raise InvalidInput(
                f"a run of {self.sampler} cannot end inside a step, after {stop} of its {len(self)} evaluations: end "
                f"it where a step begins, at one of {begins[:20]}, or take a sampler of one evaluation a step"
            )
        return before


def cuttable(told: Tensor, plan: Plan) -> Tensor:
    """`told` (n,) of the rows of `plan`, as `Timesteps` where steps have several rows."""
    ends = tuple(i + 1 for i, row in enumerate(plan.rows) if row.ends_step)
    if len(ends) == len(plan.rows):
        return told
    times = told.as_subclass(Timesteps)
    times.ends, times.sampler = ends, plan.recipe.sampler
    return times
