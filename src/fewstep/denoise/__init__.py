"""Denoisers: from any network to `x, t -> estimate of x0`, with guidance and projections around it."""

from fewstep.denoise.convert import Network
from fewstep.denoise.project import clip, dynamic_threshold
from fewstep.denoise.scale import GuidanceSchedule

__all__ = ["GuidanceSchedule", "Network", "clip", "dynamic_threshold"]
