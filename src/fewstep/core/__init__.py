"""Noise schedules, time grids and plans: float64 mathematics on the host, no networks."""

from fewstep.core.errors import InvalidInput, one_of, unknown_name

__all__ = ["InvalidInput", "one_of", "unknown_name"]
