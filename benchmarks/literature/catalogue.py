"""All claims, in the order of the page."""

from __future__ import annotations

from literature import enough, placement, randomness, resolution, solvers, speed, straight
from literature.claim import Claim

CLAIMS: tuple[Claim, ...] = (
    *speed.CLAIMS,
    *enough.CLAIMS,
    *solvers.CLAIMS,
    *placement.CLAIMS,
    *resolution.CLAIMS,
    *straight.CLAIMS,
    *randomness.CLAIMS,
)
