"""A plan's table as coefficients, written out plainly: what the tests of the solvers compare with their peers."""

import numpy as np

from fewstep.core.plan import Plan


def coefficients(plan: Plan) -> np.ndarray:
    """All inputs and the result, as coefficients of x_T, of the outputs D_i, and of the noise as it is drawn."""
    draws = [-1] * (plan.start_noise is not None) + [i for i, row in enumerate(plan.rows) if row.noise]
    unit = np.eye(1 + len(plan.rows) + len(draws))
    noise = {row: unit[1 + len(plan.rows) + j] for j, row in enumerate(draws)}
    R = np.outer(plan.init[:, 0], unit[0]) + np.outer(plan.init[:, 1], noise.get(-1, 0 * unit[0]))
    states = [R[0]]
    for i in range(len(plan.rows)):
        R = (
            plan.A[i] @ R
            + np.outer(plan.B[i].sum(axis=1), unit[1 + i])
            + np.outer(plan.s[i], noise.get(i, 0 * unit[0]))
        )
        states.append(R[0])
    return np.array(states)
