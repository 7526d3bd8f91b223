"""Denoisers: from any network to `x, t -> estimate of x0`, with guidance and projections around it.

Names are imported when they are first used, so that what needs one of the light ones does not load the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewstep.denoise.prediction import PREDICTIONS
from fewstep.lazy import importer

if TYPE_CHECKING:
    from fewstep.denoise.convert import Network
    from fewstep.denoise.project import clip, dynamic_threshold
    from fewstep.denoise.scale import GuidanceSchedule

_HOME = {
    "Network": "fewstep.denoise.convert",
    "clip": "fewstep.denoise.project",
    "dynamic_threshold": "fewstep.denoise.project",
    "GuidanceSchedule": "fewstep.denoise.scale",
}
__all__ = [
    "PREDICTIONS",
    "GuidanceSchedule",
    "Network",
    "clip",
    "dynamic_threshold",
]

__getattr__ = importer(__name__, _HOME)
