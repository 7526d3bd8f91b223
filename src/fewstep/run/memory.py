"""How much memory can be had where a network runs, and how much is held there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

UNKNOWN = 1 << 62
"""More than any machine has, so that nothing is refused."""


def free_bytes(device: torch.device | str = "cpu") -> int:
    """Bytes of memory that can be had on a device.

    Of a CUDA device: what it has free, and what torch holds there without using it. Of the host: what Linux says is
    available, less where a control group has less; elsewhere half of what is installed, and `UNKNOWN` where the
    system does not say that.
    """
    device = torch.device(device)
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    try:
        table = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(table["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        if not hasattr(os, "sysconf"):  # Windows
            return UNKNOWN
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else max(0, min(free, int(limit) - int(used)))
    except (OSError, ValueError):
        return free


def readable(count: int) -> str:
    """Bytes in words, such as 1.5 GB."""
    if count >= 1e8:
        return f"{count / 1e9:,.1f} GB"
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count:,} bytes"


def held_bytes(device: torch.device | str = "cpu") -> int:
    """Bytes of memory that this process holds on a device: of a CUDA device those of tensors, of the host all.

    Where the system does not say what a process holds now, the most that it ever held.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return most_held_bytes()
    return pages * os.sysconf("SC_PAGE_SIZE")


def most_held_during(work: Callable[[], T]) -> tuple[T, int]:
    """What some work returns, and the most bytes of the host's memory that this process held meanwhile, with all that
    the allocator keeps; 0 where the system does not say, as Linux does.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return work(), 0
    found = work()
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return found, int(lines.get("VmHWM", "0").split()[0]) * 1024


def most_held_bytes() -> int:
    """The most bytes of the host's memory that this process ever held, 0 where the system does not say."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
