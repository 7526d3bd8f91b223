"""Drivers: loops that run any plan with any denoiser, and know no solver by name."""

from fewstep.run.device import checked_device
from fewstep.run.lower import DATA, NOISE, RAW, combinations

__all__ = ["DATA", "NOISE", "RAW", "checked_device", "combinations"]
