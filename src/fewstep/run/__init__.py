"""Drivers: loops that run any plan with any denoiser, and know no solver by name.

Names are imported when they are first used, so that what needs one of the light ones does not load the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewstep.lazy import importer

if TYPE_CHECKING:
    from fewstep.run.device import checked_device
    from fewstep.run.lower import DATA, NOISE, RAW, combinations
    from fewstep.run.memory import readable

_HOME = {
    "checked_device": "fewstep.run.device",
    "DATA": "fewstep.run.lower",
    "NOISE": "fewstep.run.lower",
    "RAW": "fewstep.run.lower",
    "combinations": "fewstep.run.lower",
    "readable": "fewstep.run.memory",
}
__all__ = [
    "DATA",
    "NOISE",
    "RAW",
    "checked_device",
    "combinations",
    "readable",
]

__getattr__ = importer(__name__, _HOME)
