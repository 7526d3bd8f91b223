"""A bench of a model of a few hundred weights, for processes that are killed."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fewstep.benchmark import Bench, Pictures, Sweep, bench, work
from fewstep.measure.converged import Converged, Flow

SWEEP = Sweep(samplers=("ddim", "unipc-2", "heun"), grids=("trailing", "karras"), steps=(1, 2, 3), guidance=(1.0,))
PLANS = 18
"""Of `SWEEP`."""


def measure(model: Path, output: Path, sweep: Sweep = SWEEP, **more: Any) -> Bench:
    """Measure a sweep of the model at `model`: 6 images in batches of 4, so that the last is not full."""
    pictures = {name: more.pop(name) for name in ("count", "batch", "seed", "prompts") if name in more}
    return bench(str(model), sweep, output=output, pictures=Pictures(**{"count": 6, "batch": 4, **pictures}), **more)


def measure_alone(model: Path, output: Path) -> None:
    """The same in a process of its own, on one thread."""
    import torch

    torch.set_num_threads(1)
    work.BLOCK_CASES = 3  # so that results come now and then
    measure(model, output)


def commands(page: Path, start: str) -> list[list[str]]:
    """The commands on a page that begin with `start`, as the words that a shell makes of them."""
    blocks = re.findall(r"<pre>(.*?)</pre>", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in html.unescape(block).splitlines()]
    return [shlex.split(line) for line in lines if line.startswith(start)]


def solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let equal converged solutions be solved once for all tests of this process: they take most of the time."""
    original = work.converge

    def solve(flow: Flow, numbers: Sequence[int], *more: Any, **options: Any) -> Converged:
        key = options["model"]
        if key not in SOLVED:
            SOLVED[key] = original(flow, numbers, *more, **options)
        return SOLVED[key]

    monkeypatch.setattr(work, "converge", solve)


SOLVED: dict[str, Converged] = {}
