"""The impulse response of a plan: every state of a run written out in what went into it.

A plan is linear in the state it starts from, in the outputs of the network and in its noise. Running it on unit
vectors instead of images therefore gives, for each network input and for the result, one coefficient for each of these.
Two samplers are the same if and only if these tables are, no matter how they keep their history.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fewstep.core.plan import Interval, Plan
from fewstep.core.schedule import Float


class Impulse(NamedTuple):
    """Coefficients over m columns: the starting states, the n data outputs f_0 .. f_{n-1}, the noise draws in order.

    `inputs` (n, m) are the states at which the network is evaluated; `result` (m,) is the last state. `starts` is 1, or
    2 for a plan that starts from a pair. `draws` are the intervals of the noise draws.
    """

    inputs: Float
    result: Float
    starts: int
    draws: tuple[Interval, ...]

    @property
    def data(self) -> slice:
        """Columns of the network's outputs."""
        return slice(self.starts, self.starts + len(self.inputs))

    @property
    def noise(self) -> slice:
        """Columns of the noise draws."""
        return slice(self.starts + len(self.inputs), None)

    @property
    def states(self) -> Float:
        """The inputs, then the result: (n + 1, m)."""
        return np.vstack([self.inputs, self.result])


def impulse(plan: Plan) -> Impulse:
    """The impulse response of `plan`, for a denoiser that does not clip: estimate and raw estimate are one output."""
    intervals = [plan.start_noise, *(row.noise for row in plan.rows)]
    draws = tuple(interval for interval in intervals if interval is not None)
    starts, n = plan.inputs, len(plan.rows)
    R = np.zeros((plan.registers, starts + n + len(draws)))
    R[:, :starts] = plan.init[:, :-1]
    column = starts + n
    if plan.start_noise is not None:
        R[:, column] = plan.init[:, -1]
        column += 1
    inputs = np.empty((n, R.shape[1]))
    for i, row in enumerate(plan.rows):
        inputs[i] = R[0]
        R = plan.A[i] @ R
        R[:, starts + i] += plan.B[i].sum(axis=1)
        if row.noise is not None:
            R[:, column] += plan.s[i]
            column += 1
    return Impulse(inputs, R[0], starts, draws)
