"""The loop: one network evaluation and one small linear combination for each row of a plan."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan, Row
from fewstep.denoise.base import Denoiser, Level, as_denoiser
from fewstep.run.lower import DATA, NOISE, RAW, SOURCES, Op, lower
from fewstep.run.noise import START, key_of, seeds_of, unit_noise


class NonFinite(ArithmeticError):
    """A network or a state was NaN or infinite.

    Attributes:
        row: index of the row, or None where a second run could not reproduce it; `label` is the row's.
        images: indices in the batch of the images that are lost.
        result: what `sample` would have returned; the other images in it are finished and good.
    """

    def __init__(self, message: str, row: int | None, label: str, images: list[int], result: Tensor):
        super().__init__(message)
        self.row, self.label, self.images, self.result = row, label, images, result


class Cancelled(RuntimeError):
    """`on_row` asked to stop; `preview` is the last estimate of the data."""

    def __init__(self, row: int, rows: int, preview: Tensor):
        super().__init__(f"cancelled after {row + 1} of {rows} network evaluations")
        self.row, self.preview = row, preview


@dataclass(frozen=True)
class Progress:
    """What a run shows after each network evaluation.

    `index` counts rows from 0 of `rows`; `data()` is the estimate of x0 at this row, made when asked for. Ask before
    returning: what it is made from is overwritten afterwards.
    """

    index: int
    rows: int
    row: Row
    data: Callable[[], Tensor]


def sample(
    plan: Plan,
    denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor],
    *,
    shape: Sequence[int] | None = None,
    noise: Tensor | None = None,
    start: Tensor | tuple[Tensor, Tensor] | None = None,
    seed: int | Sequence[int] = 0,
    device: torch.device | str | None = None,
    on_row: Callable[[Progress], bool | None] | None = None,
    check: bool = True,
) -> Tensor:
    """Run `plan` with `denoiser` and return the states at the end of the grid, (B, ..): data where the grid ends
    clean.

    Args:
        shape: (B, ..) of states drawn from noise alone, in float32. Give exactly one of shape, noise and start.
        noise: unit noise (B, ..), scaled here to the sigma of `plan.entry`.
        start: states at `plan.entry`'s (alpha, sigma) as they are; never written to. A pair for plans with two inputs.
        seed: of the first image, the next ones counting up; or one for each image. Image i depends on its own seed
            alone.
        device: where to draw a `shape`.
        on_row: called after each network evaluation; True cancels the run with `Cancelled`.
        check: look at the end whether all is finite, which waits for the device once.

    Raises:
        InvalidInput: for shapes that do not fit and for a plan of another noise schedule.
        NonFinite: where the result holds NaN or infinity; finished images are in it.
    """
    denoiser = as_denoiser(denoiser)
    states, seeds = starting_states(plan, denoiser, shape=shape, noise=noise, start=start, seed=seed, device=device)
    with torch.no_grad():
        results = run_rows(plan, denoiser, states, seeds, on_row)
        if check and not bool(torch.isfinite(results[0]).all()):
            raise _locate(plan, denoiser, states, seeds, results[0])
    return results[0]


def sample_pair(
    plan: Plan,
    denoiser: Denoiser | Callable[[Tensor, Tensor], Tensor],
    *,
    start: Tensor | tuple[Tensor, Tensor],
    seed: int | Sequence[int] = 0,
    on_row: Callable[[Progress], bool | None] | None = None,
) -> tuple[Tensor, ...]:
    """As `sample`, for invertible samplers: all states at the end, the last one first and the one before it second."""
    denoiser = as_denoiser(denoiser)
    states, seeds = starting_states(plan, denoiser, start=start, seed=seed)
    with torch.no_grad():
        results = run_rows(plan, denoiser, states, seeds, on_row)
        for result in results:
            if not bool(torch.isfinite(result).all()):
                raise _locate(plan, denoiser, states, seeds, result)
    return results


def check_plan(plan: Plan, denoiser: Denoiser) -> None:
    """Raise `InvalidInput` where the denoiser cannot be run with the plan, as one of another noise schedule."""
    if denoiser.schedule is not None and denoiser.schedule.fingerprint != plan.recipe.schedule_fingerprint:
        raise InvalidInput(
            f"the plan was compiled for the noise schedule {plan.recipe.schedule.get('kind')!r} "
            f"({plan.recipe.schedule_fingerprint}), the denoiser has {denoiser.schedule.kind!r} "
            f"({denoiser.schedule.fingerprint}): compile it with schedule=denoiser.schedule, or wrap the denoiser in "
            "fewstep.OnSchedule"
        )
    denoiser.check(plan)


def starting_states(
    plan: Plan,
    denoiser: Denoiser,
    *,
    shape: Sequence[int] | None = None,
    noise: Tensor | None = None,
    start: Tensor | tuple[Tensor, Tensor] | None = None,
    seed: int | Sequence[int] = 0,
    device: torch.device | str | None = None,
) -> tuple[list[Tensor], list[int]]:
    """The plan's input states and one seed for each image, from one of shape, noise and start."""
    check_plan(plan, denoiser)
    given = [name for name, value in (("shape", shape), ("noise", noise), ("start", start)) if value is not None]
    if len(given) != 1:
        raise InvalidInput(f"give exactly one of shape, noise and start, got {' and '.join(given) or 'none'}")
    if start is not None:
        states = list(start) if isinstance(start, tuple | list) else [start]
        if len(states) != plan.inputs:
            raise InvalidInput(f"{plan.recipe.sampler} starts from {plan.inputs} states here, got {len(states)}")
    else:
        if plan.inputs != 1:
            raise InvalidInput(
                f"this plan of {plan.recipe.sampler} starts from a pair: give start=(x, y), the result of its inversion"
            )
        if noise is None:
            try:
                sizes = [operator.index(n) for n in shape or ()]
            except TypeError:
                sizes = []
            if len(sizes) < 2 or min(sizes) < 1:
                raise InvalidInput(f"shape must be (batch, ..) of positive sizes, got {shape!r}")
            like = torch.empty(sizes, device=device, dtype=torch.float32)
            noise = unit_noise(seeds_of(seed, sizes[0]), START, like)
        states = [noise]
    for state in states:
        if not isinstance(state, Tensor) or not state.is_floating_point() or state.ndim < 2:
            got = f"{state.dtype} of shape {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
            raise InvalidInput(f"states are floating point tensors (batch, ..), got {got}")
        if state.shape != states[0].shape:
            raise InvalidInput(f"the states of a pair must have one shape, got {[tuple(s.shape) for s in states]}")
    dtype = torch.float64 if states[0].dtype == torch.float64 else torch.float32
    states = [state.to(dtype) for state in states]
    if start is None:
        states = [states[0] * plan.entry[1]]
    return states, seeds_of(seed, states[0].shape[0])


@lru_cache(maxsize=64)
def levels_of(plan: Plan, batch: int, dtype: torch.dtype, device: torch.device) -> tuple[Level, ...]:
    """The level of each row for a batch of so many states; shared by runs, so nobody may write to its tensors."""
    with torch.inference_mode(False):
        times = torch.tensor([row.t for row in plan.rows], dtype=dtype).to(device, non_blocking=True)
        each = times[:, None].expand(-1, batch).unbind(0)
    numbered = enumerate(zip(each, plan.rows, plan.ends, strict=True))
    return tuple(Level(t, row.alpha, row.sigma, (row[:3],), (i,), (end,)) for i, (t, row, end) in numbered)


def run_rows(
    plan: Plan,
    denoiser: Denoiser,
    states: Sequence[Tensor],
    seeds: Sequence[int],
    on_row: Callable[[Progress], bool | None] | None = None,
) -> tuple[Tensor, ...]:
    """Run `plan` row by row and return the states at the end; `on_row` as in `sample`."""
    first = states[0]
    folds = tuple([denoiser.coefficients(row.t, row.alpha, row.sigma) for row in plan.rows])
    denoiser = denoiser.begin()
    affine = denoiser.affine
    program = lower(plan, folds if affine else None, first.dtype)
    buffers: list[Any] = [None] * (program.buffers + SOURCES)
    for register, state in initial_registers(plan, states, seeds).items():
        buffers[register] = state
    levels = levels_of(plan, len(first), first.dtype, first.device)
    for i, (row, level, at, ops) in enumerate(zip(plan.rows, levels, program.inputs, program.rows, strict=True)):
        u = buffers[at]
        version = _version(buffers[program.first_memory[1]]) if i == program.first_memory[0] else None
        if affine:
            result = denoiser.output(u, level)
        else:
            result, raw = denoiser.estimate(u, level)
            buffers[RAW] = raw.clone() if raw.data_ptr() == u.data_ptr() else raw
        if version is not None and _version(buffers[program.first_memory[1]]) != version:
            raise InvalidInput(
                f"the network wrote at {row.label} to the memory of an earlier output, which {plan.recipe.sampler} "
                "still needs: return a new tensor at each call, such as output.clone()"
            )
        if result.data_ptr() == u.data_ptr():  # it is the input, which may be written to before it is read
            result = result.clone()
        buffers[DATA] = result
        if on_row is not None:
            shown = partial(_estimate, u, result, folds[i] if affine else (0.0, 1.0))
            if on_row(Progress(i, len(plan.rows), row, shown)):
                raise Cancelled(i, len(plan.rows), shown())
        if row.noise is not None:
            buffers[NOISE] = unit_noise(seeds, key_of(row.noise), first)
        execute(ops, buffers)
        # Not held during the next evaluation.
        u = result = raw = shown = buffers[DATA] = buffers[RAW] = buffers[NOISE] = None
    if levels[0].t._version:
        levels_of.cache_clear()
        raise InvalidInput("the network wrote to the times it was given, which other runs share: use t.clone() there")
    return tuple(_scaled(buffers[b], factor) for b, factor in program.results)


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written to, where PyTorch counts it."""
    return None if tensor.is_inference() else tensor._version


def _estimate(u: Tensor, result: Tensor, fold: tuple[float, float]) -> Tensor:
    return fold[0] * u + fold[1] * result if fold != (0.0, 1.0) else result


def initial_registers(plan: Plan, states: Sequence[Tensor], seeds: Sequence[int]) -> dict[int, Tensor]:
    """The registers before the first row that are not zero, and register 0, in memory of their own."""
    noise = [] if plan.start_noise is None else [unit_noise(seeds, key_of(plan.start_noise), states[0])]
    sources = [*states, *noise]
    registers = {}
    for r, weights in enumerate(plan.init.tolist()):
        terms = [(x, w) for x, w in zip(sources, weights, strict=False) if w]
        if terms or r == 0:
            [(x, w), *rest] = terms or [(states[0], 0.0)]
            registers[r] = x.clone() if w == 1.0 else x * w
            for x, w in rest:
                registers[r].add_(x, alpha=w)
    return registers


def execute(ops: Sequence[Op], buffers: list[Any]) -> None:
    """Carry out one row's instructions on `buffers`, whose last `SOURCES` are not registers."""
    for dst, lead, factor, first, rest in ops:
        total = buffers[lead]
        if factor is not None:
            total = torch.mul(total, factor, out=buffers[dst])
        elif first is not None:
            total = torch.add(total, buffers[first[0]], alpha=first[1], out=buffers[dst])
        for source, c in rest:
            total.add_(buffers[source], alpha=c)
        buffers[dst] = total


def _scaled(state: Tensor, factor: float) -> Tensor:
    return state if factor == 1.0 else state * factor


def _locate(
    plan: Plan, denoiser: Denoiser, states: Sequence[Tensor], seeds: Sequence[int], result: Tensor
) -> NonFinite:
    """Run once more, looking at every row, to say where the first value that is not finite came from."""

    def lost(x: Tensor) -> list[int]:
        return (~torch.isfinite(x).flatten(1).all(dim=1)).nonzero().flatten().tolist()

    images = lost(result)
    for state in states:
        if lost(state):
            return NonFinite(
                f"the starting state of image {lost(state)} holds NaN or infinity",
                None,
                "start",
                images,
                result,
            )

    def watch(progress: Progress) -> None:
        bad = lost(progress.data())
        if bad:
            name = f"row {progress.index} of {progress.rows} ({progress.row.label}, time {progress.row.t:g})"
            raise NonFinite(
                f"the network returned NaN or infinity at {name} for images {bad} of the batch; the others are in "
                ".result. Try the network in float32, a lower guidance scale, or `fewstep doctor`",
                progress.index,
                progress.row.label,
                images,
                result,
            )

    try:
        run_rows(plan, denoiser, states, seeds, watch)
    except NonFinite as found:
        return found
    return NonFinite(f"images {images} hold NaN or infinity, but a second run did not", None, "", images, result)
