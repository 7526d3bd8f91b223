"""A run that is killed twenty times, in steps, while it saves and at a round's edge, ends as if nobody had."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/kills.py"


@pytest.mark.slow
def test_twenty_kills_change_no_bit(tmp_path: Path) -> None:
    words = [sys.executable, str(SCRIPT), "--kills", "20", "--folder", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    killed, compared = done.stdout.splitlines()
    assert killed.startswith("killed 20 times, before ")
    assert all(what in killed for what in ("a file", "a rename", "a step", "a round's first step"))
    assert compared == "weights, averages, moments and samples are those of the undisturbed run, to the bit"
