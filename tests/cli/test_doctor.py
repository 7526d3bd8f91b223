"""`fewstep doctor`: says what the shipped model is."""

import json
from pathlib import Path

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
