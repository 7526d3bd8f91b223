"""Two processes of one module, joined by gloo as a launcher would, and what each of them found."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run_by_two(module: str, folder: Path) -> None:
    """`python -m module folder` in both."""
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(TESTS), *sys.path])
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-m", module, str(folder)],
            env={**os.environ, **launch, "RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)


def found_in(folder: Path) -> list[dict[str, Any]]:
    """What the two wrote into a folder."""
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(2)]
