"""`fewstep compare --guidance 1,3,5`: the same seeds over scales."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.measure.saturation import saturation
from fewstep.pipeline import load
from models import tiny_diffusers
from models.tiny import LOST, broken

from .conftest import Call

QUICK = ("compare", "tiny.safetensors", "--steps", 3, "--count", 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_diffusers.write("sd", folder)
    return folder


def test_each_scale_has_its_cost_and_the_saturation_of_the_same_seeds(call: Call, here: Path) -> None:
    result = call(*QUICK, "--guidance", "1,3,40", "--seed", 5, "--samplers", "ddim", "--json")
    report = json.loads(result.stdout)
    pipe = load(here / "tiny.safetensors")
    assert (report["images"], report["sampler"], report["steps"]) == (6, "ddim", 3)
    for row, scale in zip(report["results"], (1, 3, 40), strict=True):
        images = pipe([0, 0, 1, 1, 2, 2], sampler="ddim", steps=3, seed=5, guidance=scale)
        share, chroma = saturation(images.tensor, *images.value_range)
        assert row["saturated"] == pytest.approx(float(share.mean()))
        assert row["chroma"] == float(chroma.mean()) == 0  # greys
        assert (row["guidance"], row["nfe"], row["adherence"]) == (scale, images.nfe, None)
    assert [row["nfe"] for row in report["results"]] == [3, 6, 6]
    assert report["results"][2]["saturated"] > report["results"][0]["saturated"]


def test_the_table_and_the_picture_have_a_row_for_each_scale(call: Call, here: Path) -> None:
    result = call(*QUICK, "--guidance", "1,3,3", "--output", "new/c.png")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["guidance", "NFE", "saturated", "chroma", "seconds"]
    assert [row[:2] for row in rows[2:4]] == [["1", "3"], ["3", "6"]]
    assert rows[-1] == ["new/c.png"]
    with Image.open("new/c.png") as picture:
        strips = np.asarray(picture.convert("L"))
    assert strips.std() > 10


def test_prompts_are_compared_with_a_negative_one(call: Call, here: Path, model: Path) -> None:
    words = ("compare", model, "lion", "a red circle", "--count", 1, "--steps", 1, "--guidance", "1,4")
    plain = json.loads(call(*words, "--json").stdout)["results"]
    result = call(*words, "--json", "--negative", "blue")
    steered = json.loads(result.stdout)["results"]
    assert [row["nfe"] for row in plain] == [1, 2]
    assert plain[0]["chroma"] == steered[0]["chroma"]
    assert plain[1]["chroma"] != steered[1]["chroma"]
    assert result.stderr.count("the negative prompt has no effect") == 1


def test_held_out_prompts_of_scenes_are_checked(call: Call, here: Path, tmp_path: Path) -> None:
    tiny_diffusers.write("sd", tmp_path / "large")
    config = tmp_path / "large/unet/config.json"
    config.write_text(config.read_text().replace('"sample_size": 8', '"sample_size": 32'))
    words = ("compare", tmp_path / "large", "--held-out", 3, "--steps", 1, "--guidance", "1,2")
    result = call(*words)
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    heads = ("guidance", "NFE", "saturated", "chroma", "adherence", "behind the best by", "seconds")
    assert rows[0] == " ".join(heads).split()
    assert [row[4] for row in rows[2:4]] == ["0.0%", "0.0%"]  # a random network draws no scene
    said = "3 images cannot tell any of these scales apart: guidance 1 is taken, the lowest; draw more"
    assert said in result.stderr
    found = json.loads(call(*words, "--json").stdout)
    assert [row["adherence"] for row in found["results"]] == [0.0, 0.0]
    assert (found["verdict"]["scale"], found["verdict"]["as_good"]) == (1.0, [1.0, 2.0])


def test_the_distance_to_real_pictures_tells_the_better_scale(call: Call, here: Path) -> None:
    (here / "real").mkdir()
    for n, picture in enumerate(load(here / "tiny.safetensors")(count=40, steps=3, guidance=1.0).images):
        picture.save(here / f"real/{n}.png")
    words = ("compare", "tiny.safetensors", "--steps", 3, "--count", 40, "--guidance", "1,3,60", "--data", "real")
    result = call(*words)
    assert result.exit_code == 0, result.stderr
    assert "kernel distance" in result.stdout
    verdict = json.loads(call(*words, "--json").stdout)["verdict"]
    assert [rung["scale"] for rung in verdict["scales"]] == [1.0, 3.0, 60.0]
    assert (verdict["scale"], verdict["as_good"]) == (1.0, [1.0])
    assert all(words in result.stderr for words in verdict["words"])


def test_where_nothing_tells_the_better_scale_it_is_said_what_would(call: Call, here: Path) -> None:
    result = call(*QUICK, "--guidance", "1,3")
    assert "No scale is said to be better: nothing is known of tiny that tells a better guidance scale" in result.stderr
    assert "give --data FOLDER of real pictures" in result.stderr
    few = call("compare", "digits", "--steps", 1, "--count", 1, "--guidance", "1,3")
    assert "10 images are too few for the distance, which needs 320: give --count 32" in few.stderr


def test_a_scale_that_is_not_finite_is_reported_as_such(call: Call, here: Path) -> None:
    broken(here / "broken.safetensors")
    words = ("compare", "broken.safetensors", "--steps", 2, "--count", 1, "--labels", f"0,{LOST}", "--guidance", "1,2")
    result = call(*words)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("not finite") == 4
    assert [row["saturated"] for row in json.loads(call(*words, "--json").stdout)["results"]] == [None, None]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guidance", "1,x"], "'x' in the list is not a guidance scale"),
        (["--guidance", "1,nan"], "outside"),
        (["--guidance", "1,2", "--steps", "2,3"], "--steps takes one value"),
        (["--guidance", "1,2", "--samplers", "ddim,heun"], "--samplers takes one value"),
        (["--guidance", "1,2", "--reference-steps", "50"], "guidance scales have no reference"),
        (["--guidance", "1,2", "--negative", "blue"], "'blue' in the list is not a label"),
        (["lion"], "PROMPT is for models that take prompts"),
        (["--guidance", "1,2", "--held-out", "3"], "--held-out is for models that take prompts"),
        (["--guidance", "1,2", "--labels", "7"], "no label 7"),
        (["--guidance", "1,2", "--count", "400"], "more than 1000"),
        (["--held-out", "3"], "--held-out is for several guidance scales"),
        (["--negative", "3"], "no label 3"),
        (["--data", "real"], "--data is for several guidance scales"),
        (["--guidance", "1,2", "--data", "nowhere"], "nowhere is not a folder of real pictures"),
        (["--guidance", "1,2", "--clip", "clip"], "--clip scores pictures under prompts"),
    ],
)
def test_bad_values_are_named(call: Call, here: Path, words: list[str], message: str) -> None:
    result = call("compare", "tiny.safetensors", *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "sd draws from words"),
        (["lion", "--labels", "1"], "--labels is for models of classes"),
        (["--held-out", "3"], "--held-out reads pictures of 64 x 64 in colour, and sd makes 16 x 16"),
        (["lion", "--held-out", "3"], "--held-out brings its prompts"),
    ],
)
def test_bad_values_for_prompts_are_named(call: Call, here: Path, model: Path, words: list[str], message: str) -> None:
    result = call("compare", model, *words, "--guidance", "1,2")
    assert result.exit_code == 2
    assert message in result.stderr
