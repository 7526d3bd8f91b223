"""`fewstep doctor`: says what the shipped model is."""

import json
import shutil
from pathlib import Path

import pytest

import fewstep as fs
from models import tiny_diffusers

from .conftest import Call


def test_the_shipped_model_is_read_as_what_it_is(call: Call, here: Path) -> None:
    result = call("doctor", "--images", 32, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["file_says"] == {"prediction": "v_prediction", "schedule": "linear"}
    best = report["readings"][0]
    assert (best["prediction"], best["schedule"]) == ("v_prediction", "linear")
    assert "'v_prediction' on the 'linear' schedule" in report["verdict"]


def test_the_table_ends_with_the_verdict(call: Call, here: Path) -> None:
    result = call("doctor", "tiny.safetensors", "--images", 4)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0].split()[:2] == ["prediction", "schedule"]
    assert "tiny itself says: v_prediction on linear" in result.stderr


def test_a_variant_of_the_files_is_tested(call: Call, here: Path) -> None:
    tiny_diffusers.write("ddpm", here / "whole").save_pretrained(here / "half", variant="fp16")
    assert call("doctor", "half", "--images", 2).exit_code == 2
    half, whole = (
        call("doctor", *words, "--images", 2, "--json") for words in (["half", "--variant", "fp16"], ["whole"])
    )
    assert half.exit_code == 0, half.stderr
    assert json.loads(half.stdout)["readings"] == json.loads(whole.stdout)["readings"]


def test_a_lower_precision_is_tested_and_reads_nearly_the_same(call: Call, here: Path) -> None:
    full, half = (
        json.loads(call("doctor", "--images", 8, "--json", *words).stdout)["readings"][0]
        for words in ([], ["--dtype", "bfloat16"])
    )
    assert (half["prediction"], half["schedule"]) == (full["prediction"], full["schedule"])
    assert half["denoising"] != full["denoising"]
    assert half["denoising"] == pytest.approx(full["denoising"], rel=0.1)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two readings alone, for models that take long."""
    both = [(p, "scaled_linear", fs.schedules.scaled_linear(), 1.0) for p in ("epsilon", "v_prediction")]
    monkeypatch.setattr("fewstep.doctor.diagnosis.readings", lambda claim=None: both)


def test_a_wrong_prediction_type_is_named_and_corrected(call: Call, here: Path, few: None) -> None:
    pytest.importorskip("diffusers")
    shutil.copytree(fs.zoo.shipped_path("scenes"), "wrong")
    file = Path("wrong/scheduler/scheduler_config.json")
    right = json.loads(file.read_text())
    file.write_text(json.dumps({**right, "prediction_type": "epsilon"}))
    Path("p.txt").write_text("a red circle\na blue square\na small green star\n")
    words = ("doctor", "wrong", "--images", 3, "--prompts", "p.txt")
    said = "scheduler_config.json says epsilon, the outputs fit v_prediction"
    result = call(*words)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (1, f"{said}: change `prediction_type`")
    fixed = call(*words, "--fix", "--json")
    assert fixed.exit_code == 0, fixed.stderr
    assert (json.loads(fixed.stdout)["fixed"], json.loads(fixed.stdout)["contradiction"][: len(said)]) == (True, said)
    assert json.loads(file.read_text()) == right
    assert [path.name for path in file.parent.iterdir()] == ["scheduler_config.json"]
    again = call(*words, "--fix")
    assert again.exit_code == 0
    assert "nothing to correct" in again.stderr


def test_the_scenes_are_read_as_what_they_are(call: Call, here: Path, few: None) -> None:
    pytest.importorskip("diffusers")
    result = call("doctor", "scenes", "--images", 2)
    assert result.exit_code == 0, result.stderr
    assert "'v_prediction' on the 'scaled_linear' schedule" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["tiny.safetensors", "--fix"],
            "--fix corrects scheduler_config.json in a folder, and tiny.safetensors has none",
        ),
        (
            ["tiny.safetensors", "--prompts", "p.txt"],
            "--prompts is for models that take prompts, and tiny draws classes",
        ),
    ],
)
def test_what_does_not_fit_the_model_is_refused(call: Call, here: Path, words: list[str], message: str) -> None:
    result = call("doctor", *words)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr


def test_a_file_that_comes_with_the_package_is_not_changed() -> None:
    shipped = fs.doctor.scheduler_file("scenes")
    assert shipped is not None
    before = shipped.path.read_bytes()
    with pytest.raises(fs.InvalidInput, match="comes with fewstep: copy"):
        shipped.correct("epsilon")
    with pytest.raises(fs.InvalidInput, match="prediction_type must be one of"):
        shipped.correct("flow")
    assert shipped.path.read_bytes() == before
    assert fs.doctor.scheduler_file("digits") is None
