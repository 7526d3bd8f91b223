"""From a sampler's name to its plan."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fewstep.core.check import check_marginals, marginal_error
from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.grid import given_times, grid_times
from fewstep.core.plan import Plan, Recipe
from fewstep.core.schedule import Float, Schedule
from fewstep.core.tape import Tape
from fewstep.solvers.registry import SAMPLERS

MAX_STEPS = 100_000


def compile(
    sampler: str,
    *,
    schedule: Schedule,
    steps: int | None = None,
    grid: str = "trailing",
    grid_options: Mapping[str, Any] | None = None,
    times: Sequence[float] | Float | None = None,
    sigmas: Sequence[float] | Float | None = None,
    reverse: bool = False,
    **options: Any,
) -> Plan:
    """Compile a sampler to a plan.

    Args:
        sampler: a name from `fewstep samplers`, such as "dpmpp-2m".
        schedule: the noise schedule that the network was trained with.
        steps: transitions of the grid, 1 or more; not with `times` or `sigmas`.
        grid: a name from `fewstep.grids`, such as "karras"; `grid_options` are its parameters.
        times, sigmas: the grid itself, N + 1 decreasing values for N steps, taken verbatim. Sigmas are sigma / alpha
            for beta schedules, as in k-diffusion and diffusers, and the schedule's sigma for `edm` and `flow`.
        reverse: go from the last noisy time of the grid up to the first: inversion of a picture into noise.
        options: of the sampler, such as `eta` for "ddim".

    Raises:
        InvalidInput: for unknown names and options, and for values that the sampler cannot use.
    """
    if sampler not in SAMPLERS:
        raise unknown_name("sampler", sampler, SAMPLERS)
    given = [name for name, value in (("steps", steps), ("times", times), ("sigmas", sigmas)) if value is not None]
    if len(given) != 1:
        raise InvalidInput(f"give exactly one of steps, times and sigmas, got {' and '.join(given) or 'none'}")
    grid_options = dict(grid_options or {})
    if steps is not None:
        points = grid_times(grid, schedule, steps, **grid_options)
    else:
        if grid_options:
            raise InvalidInput(
                f"grid_options {sorted(grid_options)} have no effect on given {given[0]}: leave them out"
            )
        points, grid = given_times(schedule, times=times, sigmas=sigmas), given[0]
    if len(points) - 1 > MAX_STEPS:
        raise InvalidInput(f"a plan has at most {MAX_STEPS} steps, got {len(points) - 1}")
    if reverse:
        points = _reversed(schedule, points)

    solver, merged = solver_of(sampler, options)
    tape = Tape(schedule, points)
    try:
        result = solver(tape, **merged)
    except TypeError as error:  # an option of a type that no formula takes
        raise InvalidInput(f"{sampler} cannot use the options {dict(options)}: {error}") from error
    recipe = Recipe(
        sampler=sampler,
        options=dict(options),
        grid=grid,
        grid_options=grid_options,
        steps=len(points) - 1,
        times=tuple(float(t) for t in points),
        schedule=schedule.spec,
        schedule_fingerprint=schedule.fingerprint,
        reverse=reverse,
    )
    plan = tape.plan(result if isinstance(result, tuple) else (result,), recipe)
    if reverse and plan.stochastic:
        raise InvalidInput(
            f"{sampler} draws noise and cannot be run in reverse: choose a deterministic sampler such as 'ddim'"
        )
    if tape.inexact:
        plan = replace(plan, tolerance=float(np.max(marginal_error(plan))) * (1 + 1e-9) + 1e-12)
    check_marginals(plan)
    return plan


def solver_of(sampler: str, options: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The solver function of a sampler, and its options with the sampler's own; unknown ones are refused."""
    entry = SAMPLERS[sampler]
    module, name = entry.solver.split(":")
    solver = getattr(importlib.import_module(f"fewstep.solvers.{module}"), name)
    allowed = [p for p in inspect.signature(solver).parameters if p != "tape" and p not in entry.options]
    for option in options:
        if option not in allowed:
            raise (
                unknown_name(f"option of {sampler}", option, allowed)
                if allowed
                else InvalidInput(f"{sampler} takes no options, got {option!r}")
            )
    return solver, {**entry.options, **options}


def _reversed(schedule: Schedule, points: Float) -> Float:
    """The noisy points of a grid, from the least noisy up."""
    noisy = points[schedule.sigma(points) > 0]
    if len(noisy) < 2:
        raise InvalidInput(f"a reversed grid needs at least 2 noisy times, got {len(noisy)}: use more steps")
    return noisy[::-1].copy()
