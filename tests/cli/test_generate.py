"""`fewstep generate`: pictures that draw themselves again, and what happens when something is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import fewstep as fs
from fewstep.drawing import read
from fewstep.pipeline import images as images_of
from models.tiny import LOST, broken, write

from .conftest import Call

MODEL = "tiny.safetensors"
QUICK = ("generate", MODEL, "--steps", 3)


def pixels(path: object) -> np.ndarray:
    with Image.open(str(path)) as picture:
        return np.asarray(picture)


def test_the_shipped_model_draws_ten_rows_of_digits(call: Call, here: Path) -> None:
    result = call("generate")
    assert result.exit_code == 0
    [path] = result.stdout.splitlines()
    assert path.startswith("out/digits-")
    assert "100 images, NFE 24 each" in result.stderr
    assert pixels(path).shape == (728, 728)
    assert call("generate").stdout == result.stdout


@pytest.mark.parametrize(
    ("words", "sampler", "guidance"),
    [
        (["digits"], "deis-3", "2"),
        (["scenes"], "dpmpp-2m", "2"),
        (["a red circle"], "dpmpp-2m", "2"),
        ([], "the", "the"),
    ],
)
def test_the_help_names_the_defaults_of_the_model_in_hand(
    call: Call, words: list[str], sampler: str, guidance: str
) -> None:
    text = " ".join(call("generate", *words, "--help").output.split())
    assert f"A name from `fewstep samplers`. [default: {sampler}" in text
    assert f"at half the cost. [default: {guidance}" in text
    assert ("deis-3" in text) == (words == ["digits"])


def test_one_image_is_512_pixels_wide_and_a_recorded_layout_stays(call: Call, here: Path) -> None:
    assert call(*QUICK, "--labels", 2, "--count", 1, "--output", "a.png").exit_code == 0
    assert pixels("a.png").shape == (64 * 4, 64 * 4)  # the largest factor for images 4 wide
    fs.load(MODEL)([2], steps=3).save("old.png", fs.drawing.Layout(columns=1, scale=16, gap=1))
    assert call("redraw", "old.png", MODEL, "--output", "new.png").exit_code == 0
    assert np.array_equal(pixels("new.png"), pixels("old.png"))
    assert pixels("new.png").shape == (16 * 6, 16 * 6)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--labels", "2,0-1,none", "--count", 2, "--columns", 3, "--scale", 3, "--seed", 9, "--batch", 3],
        [
            "--sampler",
            "ddim",
            "--option",
            "eta=1",
            "--grid",
            "karras",
            "--grid-option",
            "rho=5",
            "--grid-option",
            "bias=-1",
        ],
        ["--guidance", 4, "--negative", 1, "--guidance-interval", "0.3,", "--rescale", 0.5, "--clip"],
    ],
)
def test_redraw_draws_the_same_picture(call: Call, here: Path, words: list[object]) -> None:
    assert call(*QUICK, *words, "--output", "a.png").exit_code == 0
    result = call("redraw", "a.png", MODEL, "--output", "b.png")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "b.png\n"
    assert "the same pixels as a.png" in result.stderr
    assert np.array_equal(pixels("a.png"), pixels("b.png"))
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_redraw_in_another_process_draws_the_same_picture(
    process: Callable[..., subprocess.Popen[str]], here: Path
) -> None:
    for words in (
        ("generate", "--labels", "3,8", "--seed", 5, "--output", "a.png"),
        ("redraw", "a.png", "--output", "b.png"),
    ):
        out, err = process(*words).communicate(timeout=120)
        assert out == f"{words[-1]}\n", err
    assert np.array_equal(pixels("a.png"), pixels("b.png"))


def test_each_image_is_written_alone_and_draws_itself_again(call: Call, here: Path) -> None:
    report = json.loads(call(*QUICK, "--count", 2, "--each", "--json", "--output", "all.png").stdout)
    assert report["each"][3] == "all/0003-label1.png"
    assert len(report["each"]) == report["images"] == 6
    assert call("redraw", report["each"][3], MODEL, "--output", "one.png").exit_code == 0
    assert np.array_equal(pixels("one.png"), pixels(report["each"][3]))
    gap, size = 16, 64
    assert np.array_equal(pixels("one.png"), pixels("all.png")[2 * gap + size :, 2 * gap + size :][:size, :size])


def test_json_reports_the_recipe(call: Call, here: Path) -> None:
    result = call(*QUICK, "--labels", "1", "--count", 1, "--sampler", "heun", "--guidance", 1, "--json")
    report = json.loads(result.stdout)
    assert (report["images"], report["nfe"]) == (1, 5)
    assert report["drawing"]["sampling"]["sampler"] == "heun"
    assert read(report["path"]).drawing.to_json() == report["drawing"]


def test_another_scale_may_be_asked_of_a_recipe(call: Call, here: Path) -> None:
    call(*QUICK, "--output", "a.png", "--scale", 4)
    assert call("redraw", "a.png", MODEL, "--scale", 8, "--output", "b.png").exit_code == 0
    assert np.array_equal(pixels("b.png"), pixels("a.png").repeat(2, 0).repeat(2, 1))


def test_a_plan_file_takes_the_place_of_a_sampler(call: Call, here: Path) -> None:
    call("plan", "unipc-2", "--steps", 3, "--grid", "karras", "--output", "p.json")
    call("generate", MODEL, "--plan", "p.json", "--output", "a.png")
    call(*QUICK, "--sampler", "unipc-2", "--grid", "karras", "--output", "b.png")
    assert np.array_equal(pixels("a.png"), pixels("b.png"))


def test_an_edited_plan_is_refused(call: Call, here: Path) -> None:
    call("plan", "ddim", "--steps", 3, "--output", "p.json")
    path = Path("p.json")
    path.write_text(path.read_text().replace('"steps": 3', '"steps": 4'))
    result = call("generate", MODEL, "--plan", "p.json")
    assert result.exit_code == 2
    assert "the plan was edited" in result.stderr


def test_a_plan_for_another_schedule_is_refused(call: Call, here: Path) -> None:
    call("plan", "ddim", "--steps", 3, "--schedule", "edm", "--output", "p.json")
    result = call("generate", MODEL, "--plan", "p.json")
    assert result.exit_code == 2
    assert "compiled for the noise schedule 'edm'" in result.stderr
    assert not Path("out").exists()


def test_another_model_cannot_draw_the_picture_again(call: Call, here: Path) -> None:
    call(*QUICK, "--output", "a.png")
    write(here / "other.safetensors", seed=1)
    result = call("redraw", "a.png", "other.safetensors")
    assert result.exit_code == 2
    assert read("a.png").made.model_digest in result.stderr
    assert "give the model that drew it" in result.stderr


def test_a_picture_cannot_choose_a_file_as_its_model(call: Call, here: Path) -> None:
    call(*QUICK, "--output", "a.png")
    result = call("redraw", "a.png")
    assert result.exit_code == 2
    assert "give the path of its file as MODEL" in result.stderr


def test_a_damaged_recipe_is_refused(call: Call, here: Path) -> None:
    call(*QUICK, "--output", "a.png")
    content = Path("a.png").read_bytes()
    Path("a.png").write_bytes(content.replace(b'"batch":100', b'"batch":999'))
    result = call("redraw", "a.png", MODEL)
    assert result.exit_code == 2
    assert "a.png is not a PNG picture, or it is damaged" in result.stderr


def repainted(path: str, change: Callable[[Image.Image], Image.Image]) -> None:
    """Change the pixels of a picture and keep its text."""
    with Image.open(path) as image:
        text = PngInfo()
        text.add_text("fewstep", image.info["fewstep"])
        change(image).save(path, pnginfo=text)


def test_a_picture_that_was_changed_is_said_to_be(call: Call, here: Path) -> None:
    call(*QUICK, "--output", "a.png", "--scale", 2, "--columns", 10)

    def dot(image: Image.Image) -> Image.Image:
        array = np.array(image)
        array[2 * 6 + 1, 2 * 11] ^= 255  # of the third image of the second row: gap 1, 4 pixels, twice as large
        array[0, 0] += 1  # the border
        return Image.fromarray(array)

    repainted("a.png", dot)
    result = call("redraw", "a.png", MODEL, "--output", "b.png", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["same_pixels"] is False
    assert report["difference"]["pixels"] == 2
    assert report["difference"]["images"] == [12]
    assert "a.png was changed since it was drawn: 2 of " in result.stderr
    assert f"differ, by up to {report['difference']['largest']} of 255, in image 12. Drawn again" in result.stderr
    assert Path("b.png").exists()


def test_a_picture_of_another_size_is_said_to_be(call: Call, here: Path) -> None:
    call(*QUICK, "--output", "a.png", "--scale", 2, "--columns", 10)
    repainted("a.png", lambda image: image.resize((30, 20)))
    result = call("redraw", "a.png", MODEL, "--output", "b.png")
    assert result.exit_code == 1
    assert "it has 30 x 20 pixels, drawn again 102 x 32" in result.stderr


def test_other_kinds_of_the_same_pixels_are_the_same(call: Call, here: Path) -> None:
    call(*QUICK, "--output", "a.png")
    for kind in ("RGB", "RGBA"):
        repainted("a.png", lambda image, kind=kind: image.convert(kind))
        result = call("redraw", "a.png", MODEL, "--output", "b.png")
        assert (result.exit_code, "the same pixels as a.png" in result.stderr) == (0, True)
    repainted("a.png", lambda image: image.putalpha(254) or image)
    assert call("redraw", "a.png", MODEL, "--output", "b.png").exit_code == 1


def test_pixels_that_come_out_otherwise_are_admitted(call: Call, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(*QUICK, "--output", "a.png")
    own = images_of.pixels_of
    monkeypatch.setattr(images_of, "pixels_of", lambda tensor, span: own(tensor, span) ^ 1)
    result = call("redraw", "a.png", MODEL, "--output", "b.png")
    assert result.exit_code == 1
    assert "the pixels are not those of a.png: " in result.stderr
    assert "differ, by up to 1 of 255, in images 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ... fewstep" in result.stderr


def test_finished_images_are_kept_when_the_network_returns_nan(call: Call, here: Path) -> None:
    broken(here / "broken.safetensors")
    result = call("generate", "broken.safetensors", "--count", 2, "--steps", 3, "--output", "a.png", "--columns", 2)
    assert result.exit_code == 1
    assert result.stdout == "a.png\n"
    assert "2 of 6 images are NaN or infinite, first at row 0 of 3 (step 1)" in result.stderr
    assert "Finished and kept: 4 images, in a.png" in result.stderr
    stamp = read("a.png")
    assert [stamp.drawing.subjects[i // 2] for i in stamp.made.kept(6)] == [0, 0, 1, 1]
    assert LOST not in (0, 1)
    call("redraw", "a.png", "broken.safetensors", "--output", "b.png")
    assert np.array_equal(pixels("a.png"), pixels("b.png"))


def test_nothing_is_written_when_all_images_are_nan(call: Call, here: Path) -> None:
    broken(here / "broken.safetensors", everything=True)
    result = call("generate", "broken.safetensors", "--output", "a.png")
    assert result.exit_code == 1
    assert "30 of 30 images are NaN or infinite, first at row 0 of 12 (step 1)" in result.stderr
    assert not Path("a.png").exists()


INTERRUPTED = """
import os, signal, sys
from fewstep.cli import main
from fewstep.pipeline import stages

def sample(*arguments, on_row, **more):
    def interrupt(progress):
        if progress.index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return on_row(progress)
    return real(*arguments, on_row=interrupt, **more)

real, stages.sample = stages.sample, sample
sys.argv = ["fewstep", "generate", "--output", "new/a.png"]
main()
"""


def test_ctrl_c_ends_with_130_and_leaves_nothing(here: Path) -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "fewstep: interrupted"
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("word", "seeds"),
    [("3", 3), ("3,1,2", (3, 1, 2)), ("5-7", (5, 6, 7)), ("1,1,1", (1, 1, 1)), (str(2**64 - 3), 2**64 - 3)],
)
def test_a_seed_is_what_python_takes(call: Call, here: Path, word: str, seeds: int | tuple[int, ...]) -> None:
    assert call(*QUICK, "--count", 1, "--seed", word, "--output", "a.png").exit_code == 0
    assert fs.drawing.read("a.png").drawing.seed == seeds
    expected = fs.load(MODEL)(count=1, steps=3, seed=seeds).digest
    assert fs.drawing.read("a.png").made.pixels == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels", "3"], "tiny has no label 3"),
        (["--labels", "x"], "'x' in the list is not a label"),
        (["--labels", "5-2"], "not a range"),
        (["--labels", "0-999999"], "not a range"),
        (["--labels", ""], "is not a label"),
        (["--negative", "0,1"], "names 2 labels; give one"),
        (["--count", "10000"], "a drawing has 1 to 10,000 images, got 30,000"),
        (["--count", "0"], "1<=x<=10000"),
        (["--steps", "0"], "1<=x<=10000"),
        (["--scale", "65"], "1<=x<=64"),
        (["--count", "3000", "--scale", "64"], "use a scale below 64"),
        (["--guidance", "nan"], "scale has to be a finite number, got nan"),
        (["--guidance-interval", "3,2"], "0 <= low < high"),
        (["--rescale", "2"], "range 0<=x<=1"),
        (["--seed", "-1"], "0<=x"),
        (["--seed", str(2**64)], "18446744073709551616 is not in the range 0<=x<=2^64-1"),
        (["--seed", "9" * 5000], "99999999999999999999 is not in the range"),
        (["--seed", "1,x"], "'x' in the list is not a seed"),
        (["--seed", "1,2"], "give one seed, or one for each of the 30 images, got 2"),
        (["--batch", "0"], "1<=x<=1024"),
        (["--sampler", "dimm"], "did you mean 'ddim'"),
        (["--sampler", "ddim", "--option", "etta=1"], "did you mean 'eta'"),
        (["--grid", "karas"], "did you mean 'karras'"),
        (["--grid-option", "rho=1"], "unknown option of grid 'quadratic'"),
        (["--steps", "3", "--times", "9,-1"], "got steps and times"),
        (["--output", "a.jpg"], "ends in .png"),
        (["--output", "tiny.safetensors/a.png"], "cannot write the picture"),
        (["--plan", "absent.json"], "cannot read the plan absent.json"),
        (["--bias", "1"], "No such option '--bias'"),
        (["--batch", "auto"], "is for many images, with `fewstep batch`"),
        (["lion"], "PROMPT is for models that take prompts, and tiny draws classes"),
    ],
)
def test_bad_values_are_named(call: Call, here: Path, words: list[str], message: str) -> None:
    result = call("generate", MODEL, *words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert [path.name for path in here.iterdir()] == [MODEL]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("digit", "unknown model 'digit': did you mean 'digits'"),
        ("absent.safetensors", "no file at absent.safetensors"),
        ("text.safetensors", "not a safetensors file"),
        (".", "is a folder"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_named(call: Call, here: Path, model: str, message: str) -> None:
    Path("text.safetensors").write_text("nothing of the kind")
    result = call("generate", model)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["absent.png"], "No such file or directory: absent.png"),
        ([MODEL], "tiny.safetensors is not a PNG picture"),
        (["a.png", MODEL, "--seed", "3"], "No such option '--seed'"),
        (["a.png", MODEL, "--output", "b.jpg"], "ends in .png"),
        (["a.png", MODEL, "--image", "a.png"], "were drawn without a picture"),
    ],
)
def test_what_cannot_be_drawn_again_is_named(call: Call, here: Path, words: list[str], message: str) -> None:
    call(*QUICK, "--output", "a.png")
    result = call("redraw", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not Path("out").exists()


def test_what_is_done_is_said_before_it_is_done(call: Call, here: Path) -> None:
    lines = call(*QUICK, "--sampler", "ddim", "--count", 1, "--output", "a.png").stderr.splitlines()
    assert lines[:2] == ["loading tiny.safetensors ..", "drawing 3 images, ddim in 3 steps .."]


def test_a_plan_decides_alone(call: Call, here: Path) -> None:
    call("plan", "ddim", "--steps", 3, "--output", "p.json")
    result = call("generate", MODEL, "--plan", "p.json", "--steps", 3, "--option", "eta=1")
    assert result.exit_code == 2
    assert "the plan already decides steps, options" in result.stderr
    assert "--force takes a plan" in call("generate", MODEL, "--force").stderr
