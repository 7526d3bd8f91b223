"""`fewstep train`: the same weights whatever happens on the way."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fewstep.pipeline import load

from .conftest import Call

pytest.importorskip("sklearn")
QUICK = ("train", "digits", "--steps", 60, "--batch", 8, "--seed", 3, "--output", "new/m.safetensors")


def test_a_model_is_trained_and_draws(call: Call, here: Path) -> None:
    result = call(*QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    pipe = load(report["path"])
    assert pipe.digest == report["digest"]
    assert report["held_out_loss"] < 1
    assert pipe([1], steps=2).tensor.shape == (1, 1, 8, 8)


def test_a_finished_run_is_not_done_again_and_a_restart_gives_the_same(call: Call, here: Path) -> None:
    reports = [json.loads(call(*QUICK, *more, "--json").stdout) for more in ((), (), ("--restart",))]
    assert [report["resumed_from"] for report in reports] == [0, 60, 0]
    assert len({report["digest"] for report in reports}) == 1


def test_another_run_does_not_overwrite_the_file(call: Call, here: Path) -> None:
    call(*QUICK)
    result = call(*QUICK[:6], "--output", "new/m.safetensors")
    assert result.exit_code == 2
    assert "made by another run" in result.stderr


def test_ctrl_c_keeps_what_was_done(call: Call, process: Callable[..., subprocess.Popen[str]], here: Path) -> None:
    words = ["train", "digits", "--batch", 8, "--save-every", 5, "--output", "m.safetensors", "--steps", 100_000]
    running = process(*words)
    for _ in range(600):
        if Path("m.state.safetensors").exists():
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert "the same command goes on" in err
    assert {path.name for path in here.iterdir()} <= {"m.state.safetensors", "m.log.jsonl", "tiny.safetensors"}
    assert Path("m.state.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digit"], "did you mean 'digits'"),
        (["digits", "--steps", "0"], "1<=x"),
        (["digits", "--learning-rate", "7"], "learning_rate is 7.0"),
        (["digits", "--output", "m.pt"], "ends in .safetensors"),
    ],
)
def test_bad_values_are_named(call: Call, here: Path, words: list[str], message: str) -> None:
    result = call("train", *words)
    assert result.exit_code == 2
    assert message in result.stderr
