"""`fewstep train model` trains on pictures what every other command takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

import fewstep as fs
from data.pictures import write_folder
from fewstep.cli import settings, train_model
from fewstep.training import New
from fewstep.training.times import TIMES
from fewstep.zoo.checkpoint import PREDICTIONS

Call = Callable[..., Result]
SHORT = ("--steps", 4, "--batch", 4, "--save-every", 2)


def test_a_folder_becomes_a_model_that_generate_draws_with(call: Call, here: Path) -> None:
    write_folder(here / "photos")
    words = ("train", "model", "photos", *SHORT, "--size", 8, "--widths", "8,8", "--target", "epsilon", "--mirror")
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert done.stdout == "runs/photos/model.safetensors\n"
    drawn = json.loads(call("generate", "runs/photos/model.safetensors", "--labels", "0,1", "--json").stdout)
    assert drawn["nfe"] == 40  # guided
    again = call(*words, "--json")
    assert json.loads(again.stdout) == {"path": "runs/photos/model.safetensors", "lost": {}}
    assert "step 4 of 4: as it was left" in again.stderr


def test_a_picture_that_is_left_out_is_noted(call: Call, here: Path) -> None:
    write_folder(here / "photos")
    (here / "photos/cats/1.png").write_bytes(b"")
    done = call("train", "model", "photos", *SHORT, "--size", 4, "--widths", "8")
    assert done.exit_code == 0, done.output
    assert "warning: left out, the next one takes its place: photos/cats/1.png" in done.stderr
    assert "1 samples could not be read and were left out" in done.stderr


def test_a_model_goes_on_with_other_times(call: Call, here: Path) -> None:
    np.savez(here / "a.npz", images=np.zeros((4, 4, 4)), labels=np.arange(4) % 3)
    done = call(
        "train", "model", "a.npz", "--from", "tiny.safetensors", *SHORT, "--times", "log-normal", "--min-snr", 5
    )
    assert done.exit_code == 0, done.output
    assert fs.zoo.load(here / "runs/a/model.safetensors").spec.training["method"]["min_snr"] == 5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("photo",), "unknown data 'photo'"),
        (("photos", "--from", "tiny.safetensors", "--size", 8), "--size: these are for a new network"),
        (("photos", "--anew"), "--anew is for the network of a model"),
        (("photos", "--from", "nothing"), "nothing is neither a shipped model"),
        (("photos", "--transport", "--target", "epsilon"), "ways of a flow"),
        (("photos", "--times", "uniform", "--mean", 1), "uniform times have no mean"),
        (("photos", "--min-snr", 0), "min_snr must be above 0"),
        (("photos", "--size", 9, "--widths", "8,8"), "cannot be halved"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(call: Call, here: Path, words: tuple[object, ...], said: str) -> None:
    write_folder(here / "photos")
    done = call("train", "model", *words, *SHORT)
    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()[-1]) < 900
    assert not (here / "runs/photos/log.jsonl").exists()


def test_the_names_and_defaults_in_the_help_are_those_of_the_library(call: Call) -> None:
    assert set(train_model.TARGETS) == set(PREDICTIONS)
    assert train_model.TIMES == TIMES
    assert set(train_model.SCHEDULES) <= set(dir(fs.schedules))
    assert set(settings.OPTIMISERS) == set(fs.training.OPTIMISERS)
    usual, new, how = {one.name: one for one in train_model.model.params}, New(), fs.training.Settings()
    assert (usual["target"].usual, usual["blocks"].usual) == (new.prediction, str(new.blocks))  # type: ignore[attr-defined]
    assert usual["widths"].usual == ",".join(map(str, new.widths))  # type: ignore[attr-defined]
    assert (usual["warmup"].default, usual["decay"].default) == (how.warmup, how.decay)
