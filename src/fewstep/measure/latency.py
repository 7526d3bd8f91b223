"""What a run costs: seconds by a clock that waits for the device, and the most memory it held.

A device works on while the host goes on, so the clock is read after waiting for it on either side. The first runs are
left out: they compile, allocate and warm caches.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewstep.core.errors import InvalidInput
from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Figure, figure_of


@dataclass(frozen=True)
class Cost:
    """What a run costs.

    Attributes:
        seconds: the median of `times`, with the interval of a bootstrap over runs.
        times: seconds of each run, in order.
        peak_bytes: the most memory in use during a run of its own, beyond what was in use before; None where the system
            does not tell. `memory` says of what: "cuda" tensors, or the "resident" memory of the process (Linux).
    """

    seconds: Figure
    times: tuple[float, ...]
    peak_bytes: int | None
    memory: str


def cost(
    run: Callable[[], Any],
    *,
    device: torch.device | str = "cpu",
    repeats: int = 10,
    warmup: int = 2,
    clock: Callable[[], float] = time.perf_counter,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Cost:
    """Time `run()` on `device` and measure its peak memory.

    Args:
        run: the work, such as `lambda: fewstep.sample(plan, denoiser, shape=shape)`; called warmup + 1 + repeats times.
        device: what to wait for.
        repeats: timed runs, at least 3.

    Raises:
        InvalidInput: for too few runs.
    """
    if repeats < 3 or warmup < 0:
        raise InvalidInput(f"cost needs repeats of at least 3 and warmup of at least 0, got {repeats} and {warmup}")
    device = torch.device(device)
    for _ in range(warmup):
        run()
    peak, memory = peak_memory(run, device)
    times = []
    for _ in range(repeats):
        synchronize(device)
        began = clock()
        run()
        synchronize(device)
        times.append(clock() - began)
    figure = median_of(times, f"device={device}", bootstrap)
    return Cost(figure, tuple(times), peak, memory)


def median_of(times: Sequence[float], settings: str, bootstrap: Bootstrap = BOOTSTRAP) -> Figure:
    """The median of the seconds of runs, with the interval of a bootstrap over runs."""
    drawn = bootstrap.weights(len(times)) * len(times)
    samples = torch.tensor(times, dtype=torch.float64)
    medians = torch.stack([samples.repeat_interleave(row.round().long()).quantile(0.5) for row in drawn])
    facts: dict[str, Any] = {"n": len(times), "better": "less", "settings": settings, **bootstrap.facts}
    return figure_of("latency", statistics.median(times), medians, **facts)


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done all that it was given; the CPU always has."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize(*([device] if device.type == "cuda" else []))


def peak_memory(run: Callable[[], Any], device: torch.device) -> tuple[int | None, str]:
    """The most bytes that one `run()` had in use beyond what was before, and of what; see `Cost`."""
    if device.type == "cuda":
        synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, "cuda"
    before = _resident("VmRSS") if _reset_peak() else None
    run()
    after = _resident("VmHWM")
    return (None if before is None or after is None else max(0, after - before)), "resident"


def _reset_peak() -> bool:
    """Let the kernel count the process's peak from now on; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def _resident(field: str) -> int | None:
    """A field of the process's status in bytes, on Linux."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)
