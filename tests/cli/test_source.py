"""Which words of `fewstep generate` are a model, and which shipped model draws where none is named."""

import json
from pathlib import Path

import pytest

from fewstep.cli.source import is_prompt
from fewstep.drawing import read

from .conftest import Call

QUICK = ("--steps", 1, "--scale", 1, "--output", "a.png")


def test_a_prompt_without_a_model_is_drawn_by_the_scenes(call: Call, here: Path) -> None:
    pytest.importorskip("diffusers")
    result = call("generate", "a red circle left of a blue square", "star", *QUICK)
    assert result.exit_code == 0, result.stderr
    stamp = read("a.png")
    assert (stamp.made.model, stamp.drawing.prompts) == ("scenes", ("a red circle left of a blue square", "star"))
    again = call("redraw", "a.png", "--output", "b.png")
    assert again.exit_code == 0, again.stderr
    assert "the same pixels as a.png" in again.stderr
    named = call("generate", "scenes", "a red circle left of a blue square", "star", *QUICK)
    assert named.exit_code == 0, named.stderr
    assert read("a.png") == stamp


def test_a_file_of_prompts_without_a_model_is_drawn_by_the_scenes(call: Call, here: Path) -> None:
    pytest.importorskip("diffusers")
    Path("p.txt").write_text("a star\n")
    result = call("batch", "--prompts", "p.txt", "--steps", 1, "--output", "many")
    assert result.exit_code == 0, result.stderr
    [line] = Path("many/manifest.jsonl").read_text().splitlines()
    line = json.loads(line)
    assert (line["made"]["model"], line["drawing"]["prompts"]) == ("scenes", ["a star"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a red circle", "--labels", "1"], "--labels is for models of classes, and scenes takes prompts"),
        (
            ["circle"],
            "no model is called 'circle'. To draw it, type `fewstep generate scenes circle`; a model is",
        ),
        (["red", "circle"], "no model is called 'red'. To draw it, type `fewstep generate scenes 'red circle'`"),
        (["digit"], "unknown model 'digit': did you mean 'digits'"),
        (["my model.safetensors"], "no file at my model.safetensors"),
        (["scenes"], "scenes draws from words: give a PROMPT"),
    ],
)
def test_what_cannot_be_meant_is_named(call: Call, here: Path, words: list[str], message: str) -> None:
    pytest.importorskip("diffusers")
    result = call("generate", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("out").exists()


def test_words_are_a_prompt_where_they_are_no_file(here: Path) -> None:
    assert is_prompt("a red circle")
    assert not is_prompt("circle")
    assert not is_prompt("org/name")
    assert not is_prompt("my models/")
    Path("my model").mkdir()
    assert not is_prompt("my model")
