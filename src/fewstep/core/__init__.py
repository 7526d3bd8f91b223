"""Noise schedules, time grids and plans: float64 mathematics on the host, no networks."""

from fewstep.core.errors import InvalidInput, one_of, shown, unknown_name
from fewstep.core.grid import GRIDS, beta_quantile, given_times, grid_times
from fewstep.core.plan import Plan, Recipe, Row
from fewstep.core.schedule import BetaSchedule, Float, FlowSchedule, Schedule

__all__ = [
    "GRIDS",
    "BetaSchedule",
    "Float",
    "FlowSchedule",
    "InvalidInput",
    "Plan",
    "Recipe",
    "Row",
    "Schedule",
    "beta_quantile",
    "given_times",
    "grid_times",
    "one_of",
    "shown",
    "unknown_name",
]
