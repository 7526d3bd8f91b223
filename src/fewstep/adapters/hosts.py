"""The diffusers class that a configuration belongs to, and whether its times are understood here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import Any

from fewstep.adapters.peers import SAMPLERS_OF, defaults_of
from fewstep.core import InvalidInput

UNDERSTOOD = {*SAMPLERS_OF, "CogVideoXDPM", "LTXEulerAncestralRF", "UnCLIP"}
"""Classes whose networks are told times that are known here, from noise down to data."""

SIGMA_SPACE = (
    "EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete",
    "LMSDiscrete", "DPMSolverSDE",
)  # fmt: skip
"""Classes that show their states as x / alpha, at noise sigma / alpha, on beta schedules."""


def host_of(config: Mapping[str, Any]) -> str | None:
    """The diffusers class that a configuration belongs to, without its ending `Scheduler`; None where that is open.

    A scheduler made in memory does not write its class down; it is known by having exactly that class's settings.
    """
    name = config.get("_class_name")
    if name:
        return str(name).removesuffix("Scheduler")
    keys = {key for key in config if not key.startswith("_")}
    found = [host for host in _classes() if keys == set(defaults_of(host))]
    known = [host for host in found if host in UNDERSTOOD]
    if found and not known:
        return found[0]
    samplers = {SAMPLERS_OF[host](config)[0] if host in SAMPLERS_OF else host for host in known}
    return known[0] if len(samplers) == 1 else None


def check_host(host: str | None) -> None:
    """Raise `InvalidInput` for a class of diffusers whose times or direction are not understood."""
    if host is None or host in UNDERSTOOD:
        return
    if host.endswith("Inverse"):
        raise InvalidInput(
            f"{host}Scheduler runs from data to noise, and a PlanScheduler from noise to data: keep it where a "
            "pipeline inverts a picture, or invert with fewstep.load(..).invert"
        )
    raise InvalidInput(
        f"a PlanScheduler does not know the times that the networks of {host}Scheduler are told: keep that scheduler, "
        "or give the configuration of one that it knows, such as EulerDiscreteScheduler or "
        "FlowMatchEulerDiscreteScheduler"
    )


@cache
def _classes() -> tuple[str, ...]:
    """All scheduler classes of the installed diffusers."""
    library = importlib.import_module("diffusers.schedulers")
    return tuple(name.removesuffix("Scheduler") for name in dir(library) if name.endswith("Scheduler"))
