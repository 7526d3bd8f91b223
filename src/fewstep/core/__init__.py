"""Noise schedules, time grids and plans: float64 mathematics on the host, no networks."""
