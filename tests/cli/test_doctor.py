"""`fewstep doctor`: says what the shipped model is."""

import json
from pathlib import Path

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
