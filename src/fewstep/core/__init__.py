"""Noise schedules, time grids and plans: float64 mathematics on the host, no networks.

Names are imported when they are first used, so that what needs one of the light ones does not load the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewstep.core.errors import InvalidInput, one_of, shown, unknown_name
from fewstep.lazy import importer

if TYPE_CHECKING:
    from fewstep.core.grid import GRIDS, beta_quantile, given_times, grid_times
    from fewstep.core.plan import Plan, Recipe, Row
    from fewstep.core.schedule import BetaSchedule, Float, FlowSchedule, Schedule

_HOME = {
    "GRIDS": "fewstep.core.grid",
    "beta_quantile": "fewstep.core.grid",
    "given_times": "fewstep.core.grid",
    "grid_times": "fewstep.core.grid",
    "Plan": "fewstep.core.plan",
    "Recipe": "fewstep.core.plan",
    "Row": "fewstep.core.plan",
    "BetaSchedule": "fewstep.core.schedule",
    "Float": "fewstep.core.schedule",
    "FlowSchedule": "fewstep.core.schedule",
    "Schedule": "fewstep.core.schedule",
}
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

__getattr__ = importer(__name__, _HOME)
