"""`fewstep generate` with a diffusers model: prompts in, pictures out that draw themselves again."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.drawing import read
from models import originals, tiny_diffusers
from models.tiny import write

from .conftest import Call

QUICK = ("--steps", 2, "--height", 16, "--width", 24)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_diffusers.write("sd", folder)
    return folder


def pixels(path: object) -> np.ndarray:
    with Image.open(str(path)) as picture:
        return np.asarray(picture)


def test_prompts_become_one_picture_that_draws_itself_again(call: Call, here: Path, model: Path) -> None:
    words = ("--negative", "blue", "--guidance", 5, "--seed", 7, "--scale", 1, "--sampler", "unipc-3")
    result = call("generate", model, "a red circle", "green lion", *QUICK, *words, "--timings", "--output", "a.png")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "a.png\n"
    assert "2 images, NFE 4 each" in result.stderr
    assert [word.split()[0] for word in result.stderr.splitlines()[-1].split(", ")] == [
        "encode",
        "denoise",
        "decode",
        "save",
    ]
    assert "the cache saved 0.000 s in 0 hits" in result.stderr
    assert pixels("a.png").shape == (18, 51, 3)
    recipe = read("a.png").drawing
    assert (recipe.prompts, recipe.negative, recipe.seed) == (("a red circle", "green lion"), ("blue",), 7)
    again = call("redraw", "a.png", model, "--output", "b.png")
    assert "the same pixels as a.png" in again.stderr
    assert np.array_equal(pixels("a.png"), pixels("b.png"))


def test_a_preset_is_printed_and_what_is_given_stands(call: Call, here: Path, model: Path) -> None:
    result = call("generate", model, "lion", "--preset", "best", *QUICK, "--json", "--output", "a.png", "--each")
    assert "--preset best is sampler=dpmpp-2m steps=40 grid=trailing batch=1" in result.stderr
    report = json.loads(result.stdout)
    assert (report["drawing"]["sampling"]["sampler"], report["drawing"]["sampling"]["steps"]) == ("dpmpp-2m", 2)
    assert set(report["timings"]) == {"encode", "denoise", "decode"}
    assert report["each"] == ["a/0000-lion.png"]


def test_embeddings_are_kept_from_run_to_run(call: Call, here: Path, model: Path) -> None:
    for run in range(2):
        call("generate", model, "lion", *QUICK, "--cache", "embeddings", "--output", f"{run}.png")
        assert len(list(Path("embeddings").iterdir())) == 2
    assert Path("0.png").read_bytes() == Path("1.png").read_bytes()


def test_an_original_checkpoint_is_drawn_by_its_model_config(call: Call, here: Path) -> None:
    own = tiny_diffusers.write("sd", here / "sd")
    originals.write(here / "one.safetensors", **originals.sd_parts(own))
    call("generate", "sd", "lion", *QUICK, "--output", "a.png")
    whole = ("--model-config", "sd", *QUICK)
    result = call("generate", "one.safetensors", "lion", *whole, "--output", "b.png")
    assert result.exit_code == 0, result.stderr
    assert np.abs(pixels("a.png").astype(int) - pixels("b.png")).max() <= 1
    result = call("img2img", "one.safetensors", "a.png", "lion", *whole, "--output", "c.png")
    assert result.exit_code == 0, result.stderr
    refused = call("generate", "sd", "lion", *whole)
    assert refused.exit_code == 2
    assert "config is for an original checkpoint" in refused.stderr


def test_what_is_cut_from_a_prompt_is_said(call: Call, here: Path, model: Path) -> None:
    result = call("generate", model, "red " * 14 + "blue square", *QUICK, "--output", "a.png")
    assert result.exit_code == 0
    assert "warning: the prompt" in result.stderr
    assert "it does not see the end: 'blue square'" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "sd draws from words: give a PROMPT after the model"),
        (["lion", "--labels", "3"], "--labels is for models of classes"),
        (["lion", "--clip"], "clip"),
        (["lion", "--height", "17"], "height is 17; sd makes multiples of 2"),
        (["lion", "--height", "99999"], "1<=x<=16384"),
        (["lion", "--preset", "bets"], "unknown preset 'bets': did you mean 'best'"),
        (["lion", "--dtype", "int4"], "unknown dtype 'int4'"),
        (["lion", "--count", "10001"], "1<=x<=10000"),
    ],
)
def test_bad_values_are_named(call: Call, here: Path, model: Path, words: list[str], message: str) -> None:
    result = call("generate", model, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("out").exists()


def test_what_only_prompts_have_is_refused_for_a_model_of_classes(call: Call, here: Path) -> None:
    write(here / "tiny.safetensors")
    for words, message in (
        (("--height", 8), "tiny makes only images of 4 x 4 pixels"),
        (("--clip-skip", 2), "clip_skip needs a model that takes prompts"),
    ):
        refused = call("generate", "tiny.safetensors", *words)
        assert (refused.exit_code, message in refused.stderr) == (2, True), refused.stderr
    result = call("generate", "tiny.safetensors", "lion", "--height", 8)
    assert result.exit_code == 2
    assert "PROMPT is for models that take prompts, and tiny draws classes: use --labels" in result.stderr


def test_a_folder_that_is_damaged_leaves_nothing(call: Call, here: Path, tmp_path: Path) -> None:
    tiny_diffusers.write("ddpm", tmp_path / "ddpm")
    path = tmp_path / "ddpm/unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    result = call("generate", tmp_path / "ddpm")
    assert result.exit_code == 2
    assert "damaged" in result.stderr
    assert not Path("out").exists()
