"""Options from the fields of a drawing: how they are made, and those of guidance in every command that draws."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fewstep as fs
from fewstep.cli import options
from fewstep.cli.generate import generate
from fewstep.cli.images import img2img
from fewstep.drawing import read
from fewstep.pipeline import load
from models import tiny_diffusers
from models.tiny import write

from .conftest import Call

QUICK = ("--steps", 2, "--height", 16, "--width", 16)
APG = ("--guidance-method", "apg", "--guidance-option", "norm_limit=2.5", "--guidance-option", "momentum=-0.5")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_diffusers.write("sd", folder)
    return folder


@pytest.fixture(scope="module")
def weak(model: Path) -> Path:
    """The same model with another network."""
    folder = shutil.copytree(model, model.with_name("weak"))
    module = load(folder).model.module
    tiny_diffusers.enliven(module, 5)
    module.save_pretrained(folder / "unet")
    return folder


def test_a_method_and_its_options_are_in_the_picture_and_repeated(call: Call, here: Path, model: Path) -> None:
    result = call("generate", model, "lion", *QUICK, *APG, "--guidance", 4, "--json", "--output", "a.png")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["nfe"] == 4
    found = report["drawing"]["guidance"]
    assert (found["method"], found["options"]) == ("apg", {"eta": 0.0, "norm_limit": 2.5, "momentum": -0.5})
    options = {"norm_limit": 2.5, "momentum": -0.5}
    pipe = load(model)
    images = pipe("lion", steps=2, height=16, width=16, guidance=fs.Guidance(4, method="apg", **options))
    assert images.digest == report["pixels"]
    again = call("redraw", "a.png", model, "--output", "b.png")
    assert "the same pixels as a.png" in again.stderr
    assert "NFE 4 each" in again.stderr
    assert "guided by apg" in again.stderr


def test_autoguidance_needs_its_weaker_model_again(call: Call, here: Path, model: Path, weak: Path) -> None:
    words = ("--guidance-method", "autoguidance", "--weak", weak, "--guidance", 3)
    result = call("generate", model, "lion", *QUICK, *words, "--output", "a.png")
    assert result.exit_code == 0, result.stderr
    assert "NFE 4 each" in result.stderr
    assert read("a.png").drawing.guidance.weaker == load(weak).model.digest
    result = call("redraw", "a.png", model, "--output", "b.png")
    assert (result.exit_code, "with a weaker model of digest" in result.stderr) == (2, True)
    result = call("redraw", "a.png", model, "--weak", weak, "--output", "b.png")
    assert "the same pixels as a.png" in result.stderr


def test_many_images_keep_the_method(call: Call, here: Path, model: Path) -> None:
    words = ("batch", model, "lion", "--seeds", "0-2", *QUICK, "--batch-size", 2, "--output", "a")
    result = call(*words, "--guidance-method", "pag", "--guidance-option", "layers=mid", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["nfe"] == 6
    lines = [json.loads(line) for line in Path("a/manifest.jsonl").read_text().splitlines()]
    assert [line["drawing"]["guidance"]["method"] for line in lines] == ["pag"] * 3
    assert read(next(iter(Path("a").glob("*.png")))).drawing.guidance.method == "pag"
    again = call(*words, "--guidance-method", "pag", "--json")  # mid is the usual layer
    assert json.loads(again.stdout)["drawn"] == 0
    other = call(*words)
    assert (other.exit_code, "guidance: " in other.stderr) == (2, True)


def test_the_commands_of_pictures_have_it(call: Call, here: Path, model: Path, weak: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(array).save("in.png")
    Image.new("L", (16, 16), 255).save("mask.png")
    for words, method, nfe in (
        (("img2img", model, "in.png", "lion", "--strength", 1), "apg", 4),
        (("inpaint", model, "in.png", "mask.png", "lion"), "pag", 6),
        (("edit", model, "in.png", "circle", "lion"), "cfg++", 4),
    ):
        result = call(*words, *QUICK, "--guidance-method", method, "--json")
        assert result.exit_code == 0, result.stderr
        report = json.loads(result.stdout)
        assert (report["drawing"]["guidance"]["method"], report["nfe"]) == (method, nfe)
    result = call("invert", model, "in.png", *QUICK, "--guidance-method", "cfg++", "--guidance", 0.5, "--json")
    assert result.exit_code == 0, result.stderr
    words = ("--guidance-method", "autoguidance", "--weak", weak, "--frames", 2, "--seed", "1,2")
    result = call("interpolate", model, "lion", *QUICK, *words, "--json")
    assert json.loads(result.stdout)["nfe"] == 4
    assert "guided by apg" in call("img2img", model, "in.png", "lion", *QUICK, "--guidance-method", "apg").stderr


def test_scales_and_samplers_are_compared_under_a_method(call: Call, here: Path, model: Path) -> None:
    write(here / "weak.safetensors", seed=3)
    few = ("--steps", 2, "--count", 1, "--json")
    words = ("compare", "tiny.safetensors", *few, "--guidance-method", "autoguidance", "--weak", "weak.safetensors")
    report = json.loads(call(*words, "--guidance", "1,3").stdout)
    assert (report["guidance_method"], [row["nfe"] for row in report["results"]]) == ("autoguidance", [2, 4])
    report = json.loads(call(*words, "--samplers", "ddim", "--reference-steps", 20).stdout)
    assert (report["guidance_method"], report["guidance"], report["reference"]["nfe"]) == ("autoguidance", 2.0, 40)
    result = call("compare", model, "lion", *few, "--guidance", "1,3", "--guidance-method", "pag")
    assert [row["nfe"] for row in json.loads(result.stdout)["results"]] == [4, 6]
    result = call("compare", "tiny.safetensors", *few, "--samplers", "ddim", "--guidance-method", "cfg++")
    assert (result.exit_code, "the converged reference cannot be drawn in this way" in result.stderr) == (2, True)


def test_a_default_method_is_used_and_said(
    call: Call, here: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("mine.toml").write_text('[generate]\nguidance-method = "pag"\n')
    monkeypatch.setenv("FEWSTEP_CONFIG", "mine.toml")
    result = call("generate", model, "lion", *QUICK, "--output", "a.png")
    assert "from mine.toml: guidance_method='pag'" in result.stderr
    assert "NFE 6 each" in result.stderr
    call("generate", model, "lion", *QUICK, "--guidance-method", "cfg", "--output", "b.png")
    assert read("b.png").drawing.guidance.method == "cfg"


def test_weights_by_row_are_said_and_repeated(
    call: Call, here: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = call("generate", model, "lion", *QUICK, "--guidance-schedule", "1,4", "--output", "a.png")
    assert result.exit_code == 0, result.stderr
    assert "NFE 3 each" in result.stderr
    assert "guidance by row 1, 4" in result.stderr
    assert read("a.png").drawing.guidance.scale == (1.0, 4.0)
    assert "the same pixels as a.png" in call("redraw", "a.png", model, "--output", "b.png").stderr
    linear = ("--guidance-schedule", "linear:1,6", "--sampler", "ddim")
    result = call("img2img", model, "a.png", "lion", *QUICK, *linear, "--strength", 0.5, "--json", "--output", "c.png")
    assert len(json.loads(result.stdout)["drawing"]["guidance"]["scale"]) == 1
    Path("mine.toml").write_text("[generate]\nguidance = 3\n")
    monkeypatch.setenv("FEWSTEP_CONFIG", "mine.toml")
    result = call("batch", model, "lion", "--seeds", "0-1", *QUICK, *linear, "--output", "job", "--json")
    assert result.exit_code == 0, result.stderr
    weights = [
        json.loads(line)["drawing"]["guidance"]["scale"] for line in Path("job/manifest.jsonl").read_text().splitlines()
    ]
    assert weights[0] == weights[1]
    assert 1 < weights[0][0] < weights[0][1] < 6


def test_a_schedule_is_compared_over_samplers_and_weights_over_none(call: Call, here: Path) -> None:
    few = ("compare", "tiny.safetensors", "--count", 1, "--reference-steps", 100, "--samplers", "ddim", "--steps", 2)
    result = call(*few, "--guidance-schedule", "cosine:1,3", "--json")
    assert result.exit_code == 0, result.stderr
    assert len(json.loads(result.stdout)["guidance"]) == 100
    result = call(*few, "--guidance-schedule", "1,3")
    message = "has 100 rows); give --guidance-schedule linear:NOISY,CLEAN"
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    result = call("compare", "tiny.safetensors", "--guidance", "1,2", "--guidance-schedule", "1,3")
    assert (result.exit_code, "is in its place: give one" in result.stderr) == (2, True), result.stderr


def test_a_threshold_is_for_pixels(call: Call, here: Path, model: Path) -> None:
    words = ("--labels", 1, "--count", 1, "--steps", 3, "--guidance", 7, "--dynamic-threshold")
    for given, pair in (("0.9", (0.9, math.inf)), ("0.9,1.5", (0.9, 1.5))):
        result = call("generate", "tiny.safetensors", *words, given, "--output", "a.png")
        assert result.exit_code == 0, result.stderr
        assert read("a.png").drawing.estimate.threshold == pair
        again = call("redraw", "a.png", "tiny.safetensors", "--output", "b.png")
        assert "the same pixels as a.png" in again.stderr
    for given, message in (
        ("2", "percentile above 0 and up to 1"),
        ("1,2,3", "is not a number, or two"),
        ("x", "not a number"),
    ):
        result = call("generate", "tiny.safetensors", *words, given, "--output", "c.png")
        assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    result = call("generate", model, "lion", "--dynamic-threshold", 0.9, "--output", "c.png")
    assert (result.exit_code, "sd draws latents" in result.stderr) == (2, True)
    assert not Path("c.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--guidance-schedule", "1,2,3"], "3 guidance weights were given by row, this plan of dpmpp-2m has 2 rows"),
        (["--guidance-schedule", "1,2", "--guidance", "3"], "--guidance is one scale for all rows"),
        (["--guidance-schedule", "linear:1"], "such as linear:1,7.5"),
        (["--guidance-schedule", "steps:1,2"], "such as linear:1,7.5"),
        (["--guidance-schedule", "1,x"], "'x' in the list is not a weight"),
        (["--guidance-schedule", "1,nan"], "nan in the list is outside"),
        (["--guidance-method", "apq"], "unknown guidance method 'apq': did you mean 'apg'"),
        (["--guidance-method", "apg", "--guidance-option", "norm=1"], "did you mean 'norm_limit'"),
        (["--guidance-option", "eta=1"], "unknown option of the guidance method cfg 'eta': known are rescale"),
        ([*APG, "--guidance-option", "momentum=0"], "--guidance-option momentum is given twice"),
        (["--guidance-method", "autoguidance"], "give weak="),
        (["--guidance-method", "cfg-zero"], "predicts flow"),
        (["--guidance-method", "cfg++"], "use the sampler 'ddim' or 'tcd'"),
        (["--weak", "tiny.safetensors"], "autoguidance needs a"),
    ],
)
def test_bad_values_are_named_and_leave_nothing(
    call: Call, here: Path, model: Path, words: list[object], message: str
) -> None:
    result = call("generate", model, "lion", *QUICK, *words, "--output", "a.png")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    result = call("batch", model, "lion", "--seeds", "0-1", *QUICK, *words, "--output", "a")
    assert (result.exit_code, message in result.stderr) == (2, True)
    assert not Path("a").exists()
    assert not Path("a.png").exists()


def test_every_field_of_a_drawing_is_an_option_or_named_as_none(call: Call) -> None:
    paths = {".".join(param.path) for param in [*generate.params, *img2img.params] if getattr(param, "path", ())}
    fields = {".".join(path) for path, _ in options._leaves(fs.Drawing)}
    extra = {"guidance.options.rescale"}
    assert paths - extra == fields - {*options.NO_OPTIONS}


def test_an_option_has_the_bounds_and_the_help_of_its_field() -> None:
    params = {param.name: param for param in generate.params}
    height, method, interval = params["height"], params["guidance_method"], params["guidance_interval"]
    field = fs.Drawing.model_fields["height"]
    assert (height.type.min, height.type.max, height.help) == (1, 16_384, field.description)
    assert (method.path, method.help) == (("guidance", "method"), fs.Guidance.model_fields["method"].description)
    assert interval.type.convert("0.2,", None, None) == (0.2, math.inf)
    assert params["clip"].is_flag
    assert params["plan"].path == ("sampling", "plan")


def test_what_is_given_is_an_overlay(call: Call) -> None:
    given = {"steps": 4, "option": (("eta", 1),), "guidance_option": (("eta", 0),), "rescale": 0.5, "clip": True}
    assert options.overlay(generate, given) == {
        "sampling": {"steps": 4, "options": {"eta": 1}},
        "guidance": {"options": {"eta": 0, "rescale": 0.5}},
        "estimate": {"clip": True},
    }
