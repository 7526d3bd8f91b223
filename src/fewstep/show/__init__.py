"""Pictures that teach: what samplers do on data whose score is known. The numbers here, their drawing in `draw`."""

from fewstep.show import convergence, data, draw, effort, levels, ode, trajectories
from fewstep.show.mixture import Mixture, ring
from fewstep.show.strategy import Strategy

__all__ = ["Mixture", "Strategy", "convergence", "data", "draw", "effort", "levels", "ode", "ring", "trajectories"]
