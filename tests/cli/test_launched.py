"""Commands that train under torchrun: two processes, of which one speaks, and a lost one stops the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import fewstep as fs
from data.pictures import write_folder
from fewstep.cli.app import app
from models.tiny import write

WORDS = (
    "distill", "regression", "tiny.safetensors", "--steps", "8", "--batch", "8", "--pairs", "16", "--held-out", "16",
    "--teacher-steps", "4", "--save-every", "2", "--sheet-every", "0",
)  # fmt: skip

LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def launched(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The command in two processes."""
    return subprocess.run(
        [*LAUNCH, str(Path(__file__).parent / "launched.py"), *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path), **more},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_train_one_student_and_a_lost_one_stops_the_other(tmp_path: Path) -> None:
    write(tmp_path / "tiny.safetensors")
    lost = launched(tmp_path, *WORDS, FEWSTEP_TEST_DIE="1")
    assert lost.returncode != 0
    assert "Signal 9 (SIGKILL) received" in lost.stderr  # torchrun says so, and ends the first process
    assert lost.stderr.count("The teacher draws 16 pictures") == 1
    folder = tmp_path / "runs/tiny-regression"
    assert (folder / "states/latest").read_text() == "step-00000002"
    done = launched(tmp_path, *WORDS, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert found["path"] == "runs/tiny-regression/student.safetensors"
    assert done.stderr.count("step 8 of 8") == 1
    assert done.stderr.count("as it was left") == 1
    assert fs.load(folder / "student.safetensors")([1]).nfe == 1


@pytest.mark.slow
def test_two_processes_train_one_model_on_data(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos")
    (tmp_path / "photos/cats/5.png").write_bytes(b"")
    words = ("train", "model", "photos", "--steps", "4", "--batch", "4", "--size", "4", "--widths", "8", "--json")
    done = launched(tmp_path, *words, "--sheet-every", "2")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert (found["path"], list(found["lost"])) == ("runs/photos/model.safetensors", ["2"])
    assert done.stderr.count("It needs 6 pictures") == 1
    assert "on each of 2 devices" in done.stderr
    assert done.stderr.count("step 4 of 4") == 1
    assert len(list((tmp_path / "runs/photos/samples").iterdir())) == 2
    wrong = launched(tmp_path, *words[:-1], "--batch", "5")
    assert wrong.returncode != 0
    assert wrong.stderr.count("a batch of 5 cannot be shared out to 2 processes") == 1


def test_commands_that_run_in_one_process_refuse_several(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(app, ["train", "digits", "--steps", "1"])
    assert done.exit_code == 2
    assert "fewstep train digits runs in one process, and the launcher started 2: start it without one" in done.stderr
    assert not list(tmp_path.iterdir())


def test_other_processes_than_the_first_say_nothing_of_what_all_are_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RANK", "1")
    done = CliRunner().invoke(app, ["distill", "regresion"])
    assert (done.exit_code, done.output) == (2, "")
    monkeypatch.setenv("RANK", "0")
    done = CliRunner().invoke(app, ["distill", "regresion"])
    assert (done.exit_code, "did you mean 'regression'" in done.stderr) == (2, True)
