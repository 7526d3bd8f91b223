"""What every plan must satisfy whatever the network: exact marginals, checked when it is compiled.

For data that is a single point c, a perfect denoiser answers c. Then every network input must be distributed exactly
as the schedule says, N(alpha c, sigma^2): the table alone decides it. Following the coefficients of c, of the starting
noise and of each draw through the table, the first must equal alpha and the root of the sum of squares of the others
sigma.
"""

from __future__ import annotations

import numpy as np

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.core.schedule import Float


def levels(plan: Plan) -> tuple[Float, Float]:
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


def marginal_error(plan: Plan) -> Float:
    """How far (alpha, sigma) of each row and of the result is from what the plan declares: the larger one, (n + 1,).

    The distance is absolute up to sigma = 1, and relative above it.
    """
    declared = np.array([*(row[1:3] for row in plan.rows), plan.exit]).T
    scale = np.maximum(1.0, np.hypot(*declared))
    return np.max(np.abs(np.array(levels(plan)) - declared), axis=0) / scale


def check_marginals(plan: Plan) -> None:
    """Raise `InvalidInput` where the table departs from the schedule by more than the plan declares."""
    error = marginal_error(plan)
    worst = int(np.argmax(error))
    if not error[worst] <= plan.tolerance:
        where = plan.rows[worst].label if worst < len(plan.rows) else "the result"
        raise InvalidInput(
            f"{plan.recipe.sampler} over {plan.steps} steps of grid {plan.recipe.grid!r}: (alpha, sigma) at {where} "
            f"is off by {error[worst]:.2g}, allowed is {plan.tolerance:.2g}. Choose a lower order, more steps or "
            "another grid"
        )
