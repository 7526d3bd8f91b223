import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fewstep.cli.app import app
from models.tiny import write

Call = Callable[..., Result]


@pytest.fixture(autouse=True)
def no_configuration(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody's own defaults."""
    monkeypatch.delenv("FEWSTEP_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.getbasetemp() / "nobody"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, the current one, with a model in it."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "tiny.safetensors")
    return tmp_path


@pytest.fixture
def call() -> Call:
    """Runs a command in this process."""

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture
def process() -> Callable[..., subprocess.Popen[str]]:
    """Starts a command in a process of its own."""

    def start(*words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "fewstep", *(str(word) for word in words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    return start
