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
from fewstep.denoise import PREDICTIONS
from fewstep.training import New, fresh
from fewstep.training.adapter import TARGETS
from fewstep.training.times import TIMES
from models import tiny_diffusers

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


def test_a_new_edm_model_takes_sigma_data(call: Call, here: Path) -> None:
    write_folder(here / "photos")
    new = ("--size", 4, "--widths", "8", "--target", "edm", "--sigma-data", 0.6)
    done = call("train", "model", "photos", *SHORT, *new)
    assert done.exit_code == 0, done.output
    spec = fs.zoo.load(here / "runs/photos/model.safetensors").spec
    assert (spec.prediction, spec.schedule.kind, spec.sigma_data) == ("edm", "edm", 0.6)
    drawn = json.loads(call("generate", "runs/photos/model.safetensors", "--labels", "0,1", "--json").stdout)
    assert drawn["nfe"] == 40  # guided


def test_a_dry_run_says_what_it_needs_and_writes_nothing(call: Call, here: Path) -> None:
    write_folder(here / "photos")
    before = sorted(here.rglob("*"))
    words = ("train", "model", "photos", *SHORT, "--size", 4, "--widths", "8", "--mirror", "--dry-run")
    done = call(*words)
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [line[0] for line in lines] == ["data", "memory", "time"]
    assert lines[0][1:] == ["12", "pictures"]
    found = json.loads(call(*words, "--json").stdout)
    assert found["seconds"] == pytest.approx(4 * found["step_seconds"])
    assert found["memory"]["peak"] == found["memory"]["before"] + found["memory"]["more"]
    assert sorted(here.rglob("*")) == before


def test_sheets_and_tensorboard_are_written_where_asked_for(call: Call, here: Path) -> None:
    write_folder(here / "photos")
    words = ("--size", 4, "--widths", "8", "--sheet-every", 3, "--tensorboard", "--checkpointing")
    done = call("train", "model", "photos", *SHORT, *words, "--precision", "bfloat16")
    assert done.exit_code == 0, done.output
    folder = here / "runs/photos"
    assert sorted(sheet.name for sheet in (folder / "samples").iterdir()) == ["step-00000003.png", "step-00000004.png"]
    assert len(list((folder / "tensorboard").iterdir())) == 1
    assert "It needs 6 pictures; " in done.stderr
    assert fs.zoo.load(folder / "model.safetensors").spec.training["precision"] == "bfloat16"


def test_a_configuration_of_a_network_is_enough_to_train_it_anew(call: Call, here: Path) -> None:
    tiny_diffusers.write("sd", here / "sd")
    (here / "sd/unet/diffusion_pytorch_model.safetensors").unlink()
    write_folder(here / "words", captions=True)
    words = ("train", "model", "words", "--from", "sd", *SHORT, "--dry-run")
    refused = call(*words)
    assert (refused.exit_code, "train it anew (--anew" in refused.stderr) == (2, True)
    done = call(*words, "--anew", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["samples"] == 6


def test_a_lora_is_trained_of_a_folder_and_lies_apart(call: Call, here: Path) -> None:
    tiny_diffusers.write("sd", here / "sd")
    write_folder(here / "words", captions=True)
    options = ("--from", "sd", "--lora-rank", 2, "--lora-targets", "attention", "--sheet-every", 0)
    done = call("train", "model", "words", *SHORT, *options, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == {
        "path": "runs/words/model",
        "lora": "runs/words/lora/pytorch_lora_weights.safetensors",
        "lost": {},
    }
    assert "to encode the pictures" in done.stderr
    assert call("generate", "sd", "red circle", "--lora", found["lora"], "--steps", 1).exit_code == 0
    assert not (here / "runs/words/samples").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("photo",), "unknown data 'photo'"),
        (("photos", "--from", "tiny.safetensors", "--size", 8), "--size: these are for a new network"),
        (("photos", "--anew"), "--anew is for the network of a model"),
        (("photos", "--lora-rank", 2), "a LoRA changes the weights of a trained model, and these are new"),
        (("photos", "--lora-alpha", 2), "--lora-alpha is of a LoRA: give --lora-rank too"),
        (("photos", "--device", "gpu"), "the device 'gpu' cannot be used here"),
        (("photos", "--from", "nothing"), "nothing is neither a shipped model"),
        (("photos", "--transport", "--target", "epsilon"), "ways of a flow"),
        (("photos", "--times", "uniform", "--mean", 1), "uniform times have no mean"),
        (("photos", "--min-snr", 0), "min_snr must be above 0"),
        (("photos", "--size", 9, "--widths", "8,8"), "cannot be halved"),
        (("photos", "--sigma-data", 0.5), "the network predicts flow: leave it out, or predict edm"),
        (("photos", "--target", "edm", "--sigma-data", 0), "sigma_data must be a number from 1e-06"),
        (("photos", "--target", "edm", "--schedule", "flow"), "edm says nothing of the data where alpha is 0"),
        (("photos", "--target", "edm", "--times", "uniform"), "of which uniform times up to 80 are nearly all noise"),
        (("photos", "--schedule", "edm"), "which predicts flow: predict edm, or leave the schedule out"),
        (("photos", "--from", "tiny.safetensors", "--sigma-data", 0.5), "--sigma-data: these are for a new network"),
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
    assert settings.TARGETS == TARGETS
    assert set(train_model.SCHEDULES) <= set(dir(fs.schedules))
    assert set(settings.OPTIMISERS) == set(fs.training.OPTIMISERS)
    usual, new, how = {one.name: one for one in train_model.model.params}, New(), fs.training.Settings()
    assert (usual["target"].usual, usual["blocks"].usual) == (new.prediction, str(new.blocks))  # type: ignore[attr-defined]
    assert usual["sigma_data"].usual == str(fresh.SIGMA_DATA)  # type: ignore[attr-defined]
    assert usual["widths"].usual == ",".join(map(str, new.widths))  # type: ignore[attr-defined]
    assert (usual["warmup"].default, usual["decay"].default) == (how.warmup, how.decay)


@pytest.fixture
def student(call: Call, here: Path) -> Path:
    """Of two steps, and pictures of class 2 beside it."""
    few = ("--pairs", 16, "--held-out", 16, "--check-every", 0, "--teacher-steps", 4, "--guidance", 2)
    plans = ("--option", "plans=2,1", "--option", "levels=4")
    done = call("distill", "phased", "tiny.safetensors", *plans, *SHORT, *few)
    assert done.exit_code == 0, done.output
    np.savez(here / "new.npz", images=np.zeros((4, 4, 4)), labels=np.full(4, 2))
    return here / "runs/tiny-phased/student.safetensors"


def keeping(student: Path) -> tuple[object, ...]:
    return ("train", "model", "new.npz", "--from", str(student), "--keep-steps", *SHORT, "--pairs", 8)


def test_a_student_keeps_its_steps(call: Call, here: Path, student: Path) -> None:
    words = (*keeping(student), "--teacher", "tiny.safetensors", "--distill-steps", 2, "--distill-rate", 0.01)
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert done.stdout == "runs/new/student.safetensors\n"
    assert "For its teacher it needs 4 pictures" in done.stderr
    assert "For the student it needs 8 pictures" in done.stderr
    assert "Its error in what it keeps is " in done.stderr
    drawn = json.loads(call("generate", "runs/new/student.safetensors", "--labels", "2", "--json").stdout)
    assert drawn["nfe"] == 2
    trained = fs.zoo.load(here / "runs/new/student.safetensors").spec.training
    assert (trained["settings"]["steps"], trained["settings"]["rate"]) == (2, 0.01)
    twin = fs.zoo.load(here / "runs/new/twin/model.safetensors").spec.training
    assert (twin["settings"]["steps"], twin["settings"]["rate"]) == (4, 0.001)
    again = json.loads(call(*words, "--json").stdout)
    assert again["twin"] == "runs/new/twin/model.safetensors"
    assert again["kept"]["low"] <= again["kept"]["value"] <= again["kept"]["high"]


def test_a_dry_run_says_what_both_trainings_need_and_writes_nothing(call: Call, here: Path, student: Path) -> None:
    before = sorted(here.rglob("*"))
    words = (*keeping(student), "--teacher", "tiny.safetensors", "--dry-run")
    lines = [line.split("  ")[0] for line in call(*words).stdout.splitlines()[2:]]
    parts = [f"{who}: {what}" for who in ("its teacher", "the student") for what in ("data", "memory", "time")]
    assert lines == [*parts, "in all: time"]
    found = json.loads(call(*words, "--json").stdout)
    assert found["seconds"] == found["twin"]["seconds"] + found["student"]["seconds"]
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kept", "prompts.txt", "--pairs", 8), "--kept, --pairs: of --keep-steps alone, which is not there"),
        (("--distill-steps", 8), "--distill-steps: of --keep-steps alone"),
        (("--keep-steps",), "--keep-steps is for a student of few steps: name it by --from"),
        (("--from", "tiny.safetensors", "--keep-steps", "--anew"), "--anew gives it new weights: leave one"),
        (("--from", "tiny.safetensors", "--keep-steps"), "is not a student of few steps, whose steps could be kept"),
        (("--from", "tiny.safetensors", "--keep-steps", "--size", 8), "--size: these are for a new network"),
    ],
)
def test_options_of_keeping_steps_that_do_not_go_together_are_refused(
    words: tuple[object, ...], said: str, call: Call, here: Path
) -> None:
    np.savez(here / "new.npz", images=np.zeros((4, 4, 4)), labels=np.full(4, 2))
    done = call("train", "model", "new.npz", *words)
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (here / "runs").exists()


def test_data_that_are_not_there_are_refused(call: Call, here: Path, student: Path) -> None:
    done = call("train", "model", "none.npz", "--from", str(student), "--keep-steps", *SHORT)
    assert done.exit_code == 2
    assert "unknown data 'none.npz'" in done.stderr


def test_training_a_student_without_keeping_its_steps_names_how(call: Call, here: Path, student: Path) -> None:
    done = call("train", "model", "new.npz", "--from", str(student), *SHORT)
    assert done.exit_code == 2
    assert "let it keep them (--keep-steps" in done.stderr
