"""A run that is killed twenty times, also in a cycle, a save and at a round's edge, ends as if nobody disturbed it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/kills.py"
MOMENTS = {
    "progressive": ("a file", "a rename", "a step", "a round's first step"),
    "dmd": ("a file", "a rename", "a step inside a cycle", "the second loss of a step"),
}


@pytest.mark.slow
def test_twenty_kills_change_no_bit(tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPT), "--kills", "20", "--folder", str(tmp_path)]
    words += [word for method in MOMENTS for word in ("--method", method)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for method, killed, compared in zip(MOMENTS, lines[::2], lines[1::2], strict=True):
        assert killed.startswith(f"{method}: killed 20 times, before ")
        assert all(what in killed for what in MOMENTS[method])
        assert compared == "weights, averages, moments and samples are those of the undisturbed run, to the bit"
    inside = re.search(r"(\d+) of these inside a cycle$", lines[2])
    assert inside is not None
    assert int(inside[1]) >= 3
