"""The machine that this process runs on: what seconds, and compiled code, are of."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import NamedTuple

import torch


class Machine(NamedTuple):
    """Where seconds were measured, and with which versions."""

    processor: str
    threads: int
    device: str
    torch: str
    fewstep: str


def machine_of(device: torch.device | str) -> Machine:
    """The machine that this process runs on."""
    return Machine(
        processor=_processor(),
        threads=torch.get_num_threads(),
        device=device_name(device),
        torch=torch.__version__,
        fewstep=importlib.metadata.version("fewstep"),
    )


def is_here(machine: Machine, here: Machine) -> bool:
    """Whether seconds of one machine hold for the other."""
    return (machine.processor, machine.threads, machine.device) == (here.processor, here.threads, here.device)


def device_name(device: torch.device | str) -> str:
    """ "cpu", or the kind of the accelerator with its name."""
    device = torch.device(device)
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
