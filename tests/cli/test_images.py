"""The commands that take pictures, with a tiny diffusers model."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewstep.drawing import read
from fewstep.pipeline import load
from models import tiny_diffusers

from .conftest import Call

QUICK = ("--steps", 4, "--height", 16, "--width", 24)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sd"
    tiny_diffusers.write("sd", folder)
    return folder


@pytest.fixture
def files(here: Path) -> Path:
    """A folder of its own with a picture and a mask."""
    array = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    Image.fromarray(array).save("in.png")
    mask = np.zeros((32, 48), np.uint8)
    mask[:, :24] = 255
    Image.fromarray(mask).save("mask.png")
    return here


def test_img2img_says_what_it_drew_and_the_file_knows(call: Call, files: Path, model: Path) -> None:
    words = ("--strength", 0.5, "--seed", 3, "--guidance", 3, "--sampler", "ddim", *QUICK)
    result = call("img2img", model, "in.png", "a red circle", "lion", *words)
    assert result.exit_code == 0, result.stderr
    path = result.stdout.strip()
    assert "2 images, NFE 4" in result.stderr
    stamp = read(path)
    drawing = stamp.drawing
    assert path == f"out/in-img2img-sd-{drawing.digest[:8]}.png"
    assert load(model).redraw(stamp, image="in.png").digest == stamp.made.pixels
    again = call("redraw", path, model, "--image", "in.png", "--output", "again.png")
    assert f"the same pixels as {path}" in again.stderr
    report = json.loads(call("img2img", model, "in.png", "a red circle", "lion", *words, "--json").stdout)
    assert report["drawing"] == drawing.to_json()
    assert (report["nfe"], report["drawing"]["source"]["strength"], report["drawing"]["seed"]) == (4, 0.5, 3)
    noise = ("--strength-of", "noise", "--strength", 0.3, *QUICK, "--json", "--guidance", 1)
    source = json.loads(call("img2img", model, "in.png", "lion", *noise).stdout)["drawing"]["source"]
    assert (source["strength_of"], source["strength"]) == ("noise", 0.3)


def test_inpaint_keeps_the_dark_part(call: Call, files: Path, model: Path) -> None:
    result = call("inpaint", model, "in.png", "mask.png", "lion", *QUICK, "--fit", "stretch", "--output", "a.png")
    assert result.exit_code == 0, result.stderr
    with Image.open("in.png") as before, Image.open("a.png") as after:
        kept = np.asarray(before.resize((24, 16), Image.Resampling.LANCZOS))[:, 12:]
        found = np.asarray(after)
    scale = 512 // 24  # one picture stands alone, enlarged and without a border
    assert found.shape == (16 * scale, 24 * scale, 3)
    assert np.array_equal(found[::scale, 12 * scale :: scale], kept)
    raw = call("inpaint", model, "in.png", "mask.png", "lion", *QUICK, "--no-paste", "--json")
    assert json.loads(raw.stdout)["drawing"]["source"]["paste"] is False


def test_invert_and_edit(call: Call, files: Path, model: Path) -> None:
    result = call("invert", model, "in.png", "lion", *QUICK, "--sampler", "belm", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["error"] < 1e-4
    assert report["rows"] == {"up": 4, "down": 3}
    assert Path(report["path"]).is_file()
    assert "dB in latents" in call("invert", model, "in.png", *QUICK).stderr
    result = call("edit", model, "in.png", "lion", "a red circle", *QUICK, "--guidance", 2, "--output", "e.png")
    assert result.exit_code == 0, result.stderr
    assert (read("e.png").drawing.source.prompt, read("e.png").drawing.prompts) == ("lion", ("a red circle",))


def test_interpolate_writes_a_sheet_or_an_animation(call: Call, files: Path, model: Path) -> None:
    words = ("lion", "a red circle", "--seed", "1,2", "--frames", 3, *QUICK)
    result = call("interpolate", model, *words, "--output", "a.gif")
    assert result.exit_code == 0, result.stderr
    assert "3 frames, NFE 8 each" in result.stderr
    with Image.open("a.gif") as moving:
        assert moving.n_frames == 3
    report = json.loads(call("interpolate", model, *words, "--json").stdout)
    assert report["frames"] == 3
    assert Path(report["path"]).is_file()


def test_what_nobody_named_has_a_name_of_its_own_and_replaces_nothing(call: Call, files: Path, model: Path) -> None:
    def path(*words: object) -> str:
        result = call(*words, *QUICK, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)["path"]

    Path("other").mkdir()
    with Image.open("in.png") as image:
        image.rotate(180).save("other/in.png")
    few = ("--guidance", 1)
    each = [
        path("img2img", model, "in.png", "lion", *few),
        path("img2img", model, "in.png", "lion", *few, "--seed", 1),
        path("img2img", model, "other/in.png", "lion", *few),
        path("inpaint", model, "in.png", "mask.png", "lion", *few, "--fit", "stretch"),
        path("inpaint", model, "in.png", "mask.png", "lion", *few, "--fit", "stretch", "--no-paste"),
        path("edit", model, "in.png", "lion", "a red circle", *few),
        path("edit", model, "in.png", "a star", "a red circle", *few),
        path("invert", model, "in.png", "lion"),
        path("invert", model, "in.png", "a star"),
        path("invert", model, "other/in.png", "lion"),
        path("interpolate", model, "lion", "a star", "--frames", 2),
        path("interpolate", model, "lion", "a star", "--frames", 3),
        path("interpolate", model, "lion", "a star", "--frames", 2, "--seed", "1,2"),
    ]
    assert len(set(each)) == len(each) == len(list(Path("out").iterdir()))
    assert path("invert", model, "in.png", "lion") == each[7]
    assert path("interpolate", model, "lion", "a star", "--frames", 2) == each[10]


def test_a_crop_that_loses_some_of_the_mask_is_said_and_one_of_all_is_refused(
    call: Call, files: Path, model: Path
) -> None:
    words = ("inpaint", model, "in.png", "mask.png", "lion", "--steps", 2, "--height", 32, "--output", "a.png")
    half = call(*words, "--width", 16)
    assert half.exit_code == 0, half.stderr
    assert "warning: the crop to 16 x 32 cuts off 67% of what the mask marks" in half.stderr
    mask = np.zeros((32, 48), np.uint8)
    mask[:, :8] = 255
    Image.fromarray(mask).save("mask.png")
    none = call(*words, "--width", 16)
    assert none.exit_code == 2
    assert "the crop to 16 x 32 cuts off all that the mask marks" in none.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "tiny.safetensors"),
        ("img2img", "MODEL", "in.png", "lion"),
        ("inpaint", "MODEL", "in.png", "mask.png", "lion"),
        ("edit", "MODEL", "in.png", "lion", "a star"),
        ("invert", "MODEL", "in.png"),
        ("interpolate", "MODEL", "lion", "a star"),
        ("compare", "tiny.safetensors"),
        ("redraw", "drawn.png", "tiny.safetensors"),
    ],
)
def test_a_folder_that_cannot_be_written_or_a_full_disk_is_found_before_the_work(
    call: Call, files: Path, model: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...]
) -> None:
    call("generate", "tiny.safetensors", "--labels", 1, "--count", 1, "--steps", 1, "--output", "drawn.png")
    before = sorted(files.rglob("*"))
    words = tuple(model if word == "MODEL" else word for word in words)
    monkeypatch.setattr("fewstep.cli.place.fs.load", None)  # so that calling it fails
    monkeypatch.setattr("fewstep.run.eager.sample", None)
    result = call(*words, "--output", "/proc/none/a.png")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "/proc/none/a.png" in result.stderr

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    result = call(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "cannot write the picture (No space left on device): out/" in result.stderr
    assert sorted(files.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("img2img", "MODEL", "none.png", "lion"), "No such file or directory: none.png"),
        (("img2img", "MODEL", "text.png", "lion"), "picture that is read here"),
        (("img2img", "MODEL", "in.png", "lion", "--strength", 2), "0<x<=1"),
        (("img2img", "MODEL", "in.png", "lion", "--output", "a.jpg"), "a path that ends in .png"),
        (("img2img", "MODEL", "in.png", "lion", "--output", "a.gif"), "a path that ends in .png"),
        (("img2img", "tiny.safetensors", "in.png", "lion"), "draws classes"),
        (("img2img", "MODEL", "in.png"), "Missing argument"),
        (("inpaint", "MODEL", "in.png", "in.png", "lion", "--fit", "exact"), "48 x 32 pixels and 16 x 16"),
        (("invert", "MODEL", "in.png", "--sampler", "ddpm"), "draws noise on its way"),
        (("interpolate", "MODEL", "lion"), "are the same"),
        (("interpolate", "MODEL", "lion", "--seed", "1,2", "--output", "a.mp4"), ".png or .gif"),
        (("interpolate", "MODEL", "a", "b", "--output", "a.gif", "--columns", 2), "--columns is for a .png"),
    ],
)
def test_bad_input_is_one_line_and_code_2_and_leaves_no_file(
    call: Call, files: Path, model: Path, words: tuple[object, ...], message: str
) -> None:
    Path("text.png").write_text("no picture")
    before = sorted(files.rglob("*"))
    result = call(*(model if word == "MODEL" else word for word in words))
    assert result.exit_code == 2, result.stderr
    assert message in result.stderr
    assert result.stderr.count("fewstep: error: ") == 1  # beside the bar of transformers
    assert sorted(files.rglob("*")) == before
