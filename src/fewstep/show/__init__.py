"""Pictures that teach: what samplers and students do on data whose score is known.

The numbers are here, their drawing in `draw`.
"""

from fewstep.show import (
    consistency,
    convergence,
    data,
    distillation,
    draw,
    effort,
    levels,
    ode,
    students,
    trajectories,
)
from fewstep.show.mixture import Mixture, ring
from fewstep.show.strategy import Strategy

__all__ = [
    "Mixture",
    "Strategy",
    "consistency",
    "convergence",
    "data",
    "distillation",
    "draw",
    "effort",
    "levels",
    "ode",
    "ring",
    "students",
    "trajectories",
]
