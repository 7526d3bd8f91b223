"""`fewstep train`: the same weights whatever happens on the way."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fewstep import zoo
from fewstep.pipeline import load

from .conftest import Call

pytest.importorskip("sklearn")
QUICK = ("train", "digits", "--steps", 60, "--batch", 8, "--seed", 3, "--output", "new/m.safetensors")


def test_a_model_is_trained_and_draws(call: Call, here: Path) -> None:
    result = call(*QUICK, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    pipe = load(report["path"])
    assert pipe.model.digest == report["digest"]
    assert report["held_out_loss"] < 1
    facts = zoo.load(report["path"]).spec.training
    assert facts["command"] == "fewstep train digits --seed 3 --steps 60 --batch 8"
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
    for _ in range(1800):
        if Path("m/states/latest").exists():
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (130, "")
    assert "the same command goes on" in err
    assert {path.name for path in here.iterdir()} == {"m", "tiny.safetensors"}
    assert {path.name for path in Path("m").iterdir()} == {"states", "log.jsonl"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digit"], "did you mean 'digits'"),
        (["digits", "--steps", "0"], "1<=x"),
        (["digits", "--learning-rate", "7"], "<=x<=1"),
        (["digits", "--learning-rate", "nan"], "nan"),
        (["scenes", "--learning-rate", "0", "--steps", "1"], "needs a rate above 0"),
        (["digits", "--output", "m.pt"], "ends in .safetensors"),
    ],
)
def test_bad_values_are_named(call: Call, here: Path, words: list[str], message: str) -> None:
    result = call("train", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_classifier_is_trained_and_read_back(call: Call, here: Path) -> None:
    words = ("train", "classifier", "--steps", 5, "--batch", 8)
    first, again = call(*words), call(*words, "--json")
    assert (first.exit_code, first.stdout) == (0, "runs/classifier.safetensors\n"), first.stderr
    report = json.loads(again.stdout)
    assert report["digest"] in first.stderr
    assert 0 <= report["accuracy"] <= 1
    from fewstep.zoo import classifier

    assert classifier.load(report["path"]).digest == report["digest"]
    assert call(*words, "--output", "m.pt").exit_code == 2


def test_a_folder_without_an_autoencoder_is_named(call: Call, here: Path) -> None:
    result = call("train", "scenes", "--steps", 1, "--autoencoder", "runs/none")
    assert result.exit_code == 2
    assert "runs/none holds no autoencoder: run `fewstep train autoencoder` first" in result.stderr


def test_the_parts_of_the_scenes_are_trained_one_after_the_other(call: Call, here: Path) -> None:
    pytest.importorskip("diffusers")
    quick = ("--steps", 1, "--batch", 2, "--cooldown", 1, "--threads", 1)
    first = call("train", "autoencoder", *quick)
    assert (first.exit_code, first.stdout) == (0, "runs/autoencoder/model\n"), first.stderr
    own = ("--autoencoder", "runs/autoencoder/model", "--reading", 2)
    second = call("train", "scenes", *quick, "--scenes", 256, *own)
    assert (second.exit_code, second.stdout) == (0, "runs/scenes/model\n"), second.stderr
    again = call("train", "scenes", *quick, "--scenes", 256)
    assert again.exit_code == 2
    assert "it is finished, or belongs to another run" in again.stderr
    images = load("runs/scenes/model")("a red circle", steps=2, seed=1)
    assert images.tensor.shape == (1, 3, 64, 64)
    assert 1e6 < sum(file.stat().st_size for file in Path("runs/scenes/model").rglob("*") if file.is_file()) < 12e6
