"""`--device`, `--dtype` and the rest reach the loading of every command that has them."""

import re
from pathlib import Path

import pytest
from click.testing import Result

import fewstep.benchmark.subject
import fewstep.pipeline
from fewstep.core.errors import InvalidInput
from models.tiny_diffusers import write

from .conftest import Call

WORDS = {
    "generate": [],
    "batch": ["--output", "out"],
    "compare": ["--steps", "2"],
    "compare, over scales": ["--guidance", "1,2"],
    "tune": ["--nfe", "4"],
    "bench": [],
    "choose": ["--budget-rows", "4"],
    "doctor": [],
}
OPTIONS = {
    "device": ("--device", "cuda:1"),
    "dtype": ("--dtype", "float16"),
    "variant": ("--variant", "fp16"),
    "config": ("--model-config", "a/b"),
    "prediction": ("--prediction", "sample"),
    "zero_snr": ("--no-zero-snr",),
    "lora": ("--lora", "a.safetensors:0.5", "--lora", "b.safetensors"),
    "allow_pickle": ("--allow-pickle",),
}
LACKING = {
    "bench": ["dtype"],
    "choose": ["dtype"],
    "doctor": ["prediction", "zero_snr", "lora"],
}
"""What measures in float32 has no --dtype; doctor finds what a network predicts, and tests it without LoRAs."""


def errors(result: Result) -> list[str]:
    """The lines of the error stream but for the one that says what is loaded."""
    return [line for line in result.stderr.splitlines() if not line.startswith("loading ")]


@pytest.mark.parametrize("command", WORDS)
def test_where_a_model_runs_is_for_loading(call: Call, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    seen = {}

    def load(source: str, **given: object) -> None:
        seen.update(given, source=source)
        raise InvalidInput("seen")

    monkeypatch.setattr(fewstep, "load", load)
    monkeypatch.setattr(fewstep.pipeline, "load", load)
    monkeypatch.setattr(fewstep.benchmark.subject, "load", load)
    lacking = LACKING.get(command, [])
    where = [word for name, words in OPTIONS.items() if name not in lacking for word in words]
    result = call(command.split(",")[0], "org/model", *WORDS[command], *where)
    assert (result.exit_code, "seen" in result.stderr) == (2, True)
    seen.pop("cache", None)
    if command in ("bench", "choose"):
        assert seen.pop("dtype") == "float32"
    everything = {
        "device": "cuda:1",
        "dtype": "float16",
        "variant": "fp16",
        "config": "a/b",
        "prediction": "sample",
        "zero_snr": False,
        "lora": [("a.safetensors", 0.5), ("b.safetensors", 1.0)],
        "allow_pickle": True,
    }
    wanted = {name: value for name, value in everything.items() if name not in lacking}
    assert seen == {"source": "org/model", **wanted}


@pytest.mark.parametrize("command", LACKING)
def test_what_a_command_cannot_do_is_no_option_of_it(call: Call, command: str) -> None:
    for name in LACKING[command]:
        result = call(command, *WORDS[command], *OPTIONS[name])
        assert result.exit_code == 2
        assert re.search(f"No such option.*{OPTIONS[name][0]}", result.stderr)


@pytest.mark.parametrize("command", ["generate", "bench", "choose", "doctor"])
def test_a_variant_that_is_not_there_is_refused_alike(call: Call, here: Path, command: str) -> None:
    write("ddpm", here / "ddpm")
    result = call(command, "ddpm", *WORDS[command], "--variant", "fp61")
    assert result.exit_code == 2
    assert len(errors(result)) == 1
    assert "holds no diffusion_pytorch_model.fp61.safetensors" in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["generate", "bench", "choose"])
def test_a_configuration_for_a_model_that_has_its_own_is_refused_alike(call: Call, here: Path, command: str) -> None:
    result = call(command, "tiny.safetensors", *WORDS[command], "--model-config", "somewhere")
    assert result.exit_code == 2
    assert len(errors(result)) == 1
    assert "config is for an original checkpoint" in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["compare", "tune"])
def test_an_unknown_dtype_is_refused(call: Call, command: str) -> None:
    result = call(command, *WORDS[command], "--dtype", "float61")
    assert result.exit_code == 2
    assert "did you mean 'float16'" in result.stderr
