"""From a sampler's name to its plan."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from fewstep.core.check import check_marginals, marginal_error
from fewstep.core.errors import InvalidInput, one_of, unknown_name
from fewstep.core.grid import given_times, grid_times
from fewstep.core.plan import Plan, Recipe
from fewstep.core.schedule import Float, Schedule
from fewstep.core.tape import Tape
from fewstep.solvers.registry import SAMPLERS

NUMBERS = {float: Real, int: Integral}
"""What is taken for a number of each type."""


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
        times, sigmas: the grid itself, N + 1 decreasing values for N steps, used as they are. Sigmas are sigma / alpha
            for beta schedules, as in k-diffusion and diffusers, and the schedule's sigma for `edm` and `flow`.
        reverse: go from the last noisy time of the grid up to the first, which inverts a picture into noise.
        options: of the sampler, such as `eta` for "ddim".

    Raises:
        InvalidInput: for unknown names and options, and for values that the sampler cannot use.
    """
    if sampler not in SAMPLERS:
        raise unknown_name("sampler", str(sampler), SAMPLERS)
    if not isinstance(schedule, Schedule):
        raise InvalidInput(f"schedule must be one of fewstep.schedules, such as schedules.linear(), got {schedule!r}")
    given = {"steps": steps, "times": times, "sigmas": sigmas}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise InvalidInput(f"give exactly one of steps, times and sigmas, got {' and '.join(named) or 'none'}")
    if not isinstance(grid, str) or not isinstance(grid_options or {}, Mapping):
        raise InvalidInput(f"grid is a name and grid_options a mapping, got {grid!r} and {grid_options!r}")
    grid_options = dict(grid_options or {})
    if steps is not None:
        points = grid_times(grid, schedule, steps, **grid_options)
    elif grid_options:
        raise InvalidInput(f"grid_options {sorted(grid_options)} have no effect on given {named[0]}: leave them out")
    else:
        points = given_times(schedule, times=times, sigmas=sigmas)
        grid = named[0]
    if reverse:
        points = _reversed(schedule, points)

    solver, defaults = solver_of(sampler)
    if options:
        options = _checked(sampler, get_type_hints(solver), defaults, options)
    tape = Tape(schedule, points)
    result = solver(tape, **{**SAMPLERS[sampler].options, **defaults, **options})
    recipe = Recipe(
        sampler=sampler,
        options=options,
        grid=grid,
        grid_options=grid_options,
        steps=len(points) - 1,
        times=tuple(float(t) for t in points),
        schedule=schedule.spec,
        schedule_fingerprint=schedule.fingerprint,
        reverse=reverse,
    )
    plan = tape.plan(result if isinstance(result, tuple) else (result,), recipe)
    if tape.inexact:
        departs = float(np.max(marginal_error(plan)))
        plan = replace(plan, tolerance=departs * (1 + 1e-9) + 1e-12)
    check_marginals(plan)
    return plan


def _checked(
    sampler: str, hints: Mapping[str, Any], defaults: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The options that a caller gives, each one known to the sampler and of the type that it asks for."""
    if not defaults:
        raise InvalidInput(f"{sampler} takes no options, got {', '.join(map(repr, options))}")
    for option in options:
        if option not in defaults:
            raise unknown_name(f"option of {sampler}", option, defaults)
    return {option: _plain(option, value, hints[option]) for option, value in options.items()}


def solver_of(sampler: str) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The solver function of a sampler, and the default values of the options that a caller may give."""
    entry = SAMPLERS[sampler]
    module, name = entry.solver.split(":")
    solver = getattr(importlib.import_module(f"fewstep.solvers.{module}"), name)
    parameters = inspect.signature(solver).parameters
    own = {name: parameter.default for name, parameter in parameters.items()}
    fixed = {"tape", *entry.options}
    return solver, {name: value for name, value in {**own, **entry.defaults}.items() if name not in fixed}


def _plain(option: str, value: Any, hint: Any) -> Any:
    """`value` where the solver's signature allows it; numbers, such as numpy's, become Python's own."""
    is_union = get_origin(hint) in (Union, UnionType)
    kinds = get_args(hint) if is_union else (hint,)
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices:
        one_of(option, value, [*choices, None] if NoneType in kinds else choices)
        return value
    for kind in kinds:
        if kind is not bool and isinstance(value, bool):  # Python counts it as a number
            continue
        if kind in NUMBERS and isinstance(value, NUMBERS[kind]):
            return kind(value)
        if isinstance(value, get_origin(kind) or kind):
            return value
    names = [getattr(kind, "__name__", str(kind)) for kind in kinds]
    raise InvalidInput(f"{option} must be of type {' or '.join(names)}, got {value!r}")


def _reversed(schedule: Schedule, points: Float) -> Float:
    """The noisy points of a grid, from the least noisy up."""
    noisy = points[schedule.sigma(points) > 0]
    if len(noisy) < 2:
        raise InvalidInput(f"a reversed grid needs at least 2 noisy times, got {len(noisy)}: use more steps")
    return noisy[::-1].copy()
