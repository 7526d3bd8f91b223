"""How much memory can be had where a network runs."""

from __future__ import annotations

import os
from pathlib import Path

import torch

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
