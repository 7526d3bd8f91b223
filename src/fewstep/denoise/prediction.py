"""What a network may predict, by the names of diffusers, and `edm` for a preconditioned one."""

from __future__ import annotations

PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow", "edm")
