"""What every plan must satisfy whatever the network: exact marginals, checked when it is compiled and when it is read.

For data that is a single point c, a perfect denoiser answers c. Then every network input must be distributed exactly
as the schedule says, N(alpha c, sigma^2): the table alone decides it. Following the coefficients of c, of the starting
noise and of each draw through the table, the first must equal alpha and the root of the sum of squares of the others
sigma.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from fewstep.core.errors import InvalidInput, shown
from fewstep.core.schedule import Float

LARGEST = 3e38
"""Float32 ends there."""


class Tableau(Protocol):
    """What is checked of a plan; see `fewstep.core.plan.Plan`, which checks itself where it is read."""

    @property
    def recipe(self) -> Any: ...
    @property
    def rows(self) -> Sequence[Any]: ...
    @property
    def init(self) -> Float: ...
    @property
    def A(self) -> Float: ...
    @property
    def B(self) -> Float: ...
    @property
    def s(self) -> Float: ...
    @property
    def entry(self) -> tuple[float, float]: ...
    @property
    def exit(self) -> tuple[float, float]: ...
    @property
    def companion(self) -> tuple[float, float] | None: ...
    @property
    def inputs(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def tolerance(self) -> float: ...


def levels(plan: Tableau) -> tuple[Float, Float]:
    """(alpha, sigma) that the table gives to each network input and, last, to the result: two arrays of n + 1."""
    # Columns: the data, the starting noise, then one for each noise draw so far.
    start = np.array([plan.entry, plan.companion][: plan.inputs], np.float64)
    R = np.concatenate([plan.init[:, :-1] @ start, plan.init[:, -1:]], axis=1)
    inputs = [R[0]]
    for row, A, B, s in zip(plan.rows, plan.A, plan.B, plan.s, strict=True):
        R = A @ R
        R[:, 0] += B.sum(axis=1)
        if row.noise is not None:
            R = np.concatenate([R, s[:, None]], axis=1)
        inputs.append(R[0])
    sigma = [np.linalg.norm(u[1:]) for u in inputs]
    return np.array([u[0] for u in inputs]), np.array(sigma, np.float64)


def marginal_error(plan: Tableau) -> Float:
    """How far (alpha, sigma) of each row and of the result is from what the plan declares: the larger one, (n + 1,).

    The distance is absolute up to sigma = 1, and relative above it.
    """
    declared = np.array([*(row[1:3] for row in plan.rows), plan.exit]).T
    scale = np.maximum(1.0, np.hypot(*declared))
    return np.max(np.abs(np.array(levels(plan)) - declared), axis=0) / scale


def check_marginals(plan: Tableau, least: float = 0.0) -> None:
    """Raise `InvalidInput` where the table departs from the schedule by more than it declares, and than `least`, and
    where it holds a number that states in float32 cannot.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # of tables that are refused below
        error = marginal_error(plan)
    worst = int(np.argmax(error))
    if not error[worst] <= max(plan.tolerance, least):
        where = plan.rows[worst].label if worst < len(plan.rows) else "the result"
        raise InvalidInput(
            f"{plan.recipe.sampler} over {plan.steps} steps of grid {shown(plan.recipe.grid)}: (alpha, sigma) at "
            f"{where} is off by {error[worst]:.2g}, allowed is {plan.tolerance:.2g}. Choose a lower order, more steps "
            "or another grid"
        )
    largest = max(float(np.max(np.abs(table))) for table in (plan.init, plan.A, plan.B, plan.s))
    if largest > LARGEST:
        raise InvalidInput(
            f"{plan.recipe.sampler} over {plan.steps} steps of grid {shown(plan.recipe.grid)} has coefficients of up "
            f"to {largest:.2g}, and states hold numbers up to {LARGEST:g}: the noise schedule has impossible levels"
        )
