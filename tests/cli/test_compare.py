"""`fewstep compare`: distances that mean something, and a picture with a place for each run."""

import json
from pathlib import Path

import pytest
from PIL import Image

from fewstep.cli.comparison import Cell, draw
from models.tiny import LOST, broken

from .conftest import Call

QUICK = ("compare", "tiny.safetensors", "--count", 1, "--reference-steps", 100)


def test_runs_are_measured_against_the_converged_reference(call: Call, here: Path) -> None:
    words = ["--samplers", "ddim,dpmpp-2m,heun", "--steps", "4,32", "--guidance", 1, "--reference-steps", 400]
    result = call(*QUICK, *words, "--json")
    report = json.loads(result.stdout)
    runs = {(run["sampler"], run["steps"]): run for run in report["results"]}
    assert {key: run["nfe"] for key, run in runs.items()} == {
        ("ddim", 4): 4, ("ddim", 32): 32, ("dpmpp-2m", 4): 4, ("dpmpp-2m", 32): 32, ("heun", 4): 7, ("heun", 32): 63,
    }  # fmt: skip
    for sampler in ("ddim", "dpmpp-2m", "heun"):
        assert runs[sampler, 32]["distance"] < runs[sampler, 4]["distance"] / 4
    assert runs["dpmpp-2m", 32]["distance"] < runs["ddim", 32]["distance"] / 2
    assert report["reference"]["nfe"] == 400
    assert 0 < report["reference"]["change_from_half_the_steps"] < runs["ddim", 32]["distance"]


def test_the_table_has_a_line_for_each_run_and_the_picture_a_path(call: Call, here: Path) -> None:
    result = call(*QUICK, "--samplers", "ddim,euler-a", "--steps", "2,4", "--output", "new/c.png")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:6]] == ["ddim", "ddim", "euler-a", "euler-a"]
    assert lines[-1] == "new/c.png"
    assert "* draws noise of its own" in result.stderr
    assert "from 50 steps to these it still changed by" in result.stderr
    with Image.open("new/c.png") as picture:
        assert picture.mode == "RGB"


def test_guided_runs_count_both_branches(call: Call, here: Path) -> None:
    report = json.loads(call(*QUICK, "--samplers", "ddim", "--steps", "3", "--labels", "0,1", "--json").stdout)
    assert report["results"][0]["nfe"] == 6
    assert report["images"] == 2


def test_a_run_that_is_not_finite_is_reported_as_such(call: Call, here: Path) -> None:
    broken(here / "broken.safetensors")
    words = ["compare", "broken.safetensors", "--samplers", "ddim", "--steps", "3", "--reference-steps", 20]
    result = call(*words, "--labels", LOST)
    assert result.exit_code == 1
    assert "images are NaN or infinite, first at row 0" in result.stderr
    assert call(*words, "--labels", "0,1").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samplers", "ddim,dimm"], "did you mean 'ddim'"),
        (["--samplers", ""], "a value in the list is empty"),
        (["--samplers", ",".join(["ddim"] * 21)], "at most 20"),
        (["--steps", "4,0"], "outside 1 .. 10000"),
        (["--steps", "4,x"], "not a number of steps"),
        (["--grid", "karas"], "did you mean 'karras'"),
        (["--labels", "0-2", "--count", "1000"], "are more than 1000"),
        (["--labels", "7"], "no label 7"),
        (["--output", "c.gif"], "ends in .png"),
    ],
)
def test_bad_values_are_named_before_anything_is_drawn(call: Call, here: Path, words: list[str], message: str) -> None:
    result = call("compare", "tiny.safetensors", *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_no_text_is_clipped_and_no_cell_overlaps() -> None:
    strip = Image.new("RGB", (40, 20), (255, 0, 0))
    cells = [[Cell(strip, "a caption that is wider than its strip")] * 2] * 3
    picture = draw(["short", "a much longer name", "gjpqy"], ["gjpqy", "a head that is wider than its strip"], cells)
    pixels = picture.load()
    width, height = picture.size
    background = pixels[0, 0]
    margin = 12
    for x in range(width):
        for y in range(height):
            if not (margin <= x < width - margin and margin <= y < height - margin):
                assert pixels[x, y] == background
    assert sum(count for count, colour in picture.getcolors(10_000) if colour == (255, 0, 0)) == 6 * 40 * 20
