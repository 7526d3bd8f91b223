"""Pictures of tensors: every pixel where it belongs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep as fs
from fewstep.drawing import Layout, read
from fewstep.pipeline import Pipeline, load, sheet_of
from models.tiny import text_of, write


def test_a_sheet_holds_every_pixel_enlarged_between_gaps() -> None:
    tensor = torch.tensor([-1.0, 1.0, 0.0, 0.5]).reshape(4, 1, 1, 1).expand(4, 1, 2, 3)
    sheet = np.asarray(sheet_of(tensor, (-1.0, 1.0), Layout(columns=3, scale=2, gap=1)))
    assert sheet.shape == (2 * (2 * 3 + 1), 2 * (3 * 4 + 1))
    background = sheet[0, 0]
    assert (sheet[2:6, 2:8] == 0).all()
    assert (sheet[2:6, 10:16] == 255).all()
    assert (sheet[2:6, 18:24] == 128).all()
    assert (sheet[8:12, 2:8] == 191).all()
    assert (sheet[8:12, 10:] == background).all()
    assert (sheet[:, 8:10] == background).all()


def test_values_beyond_the_range_are_clamped_and_another_range_is_scaled() -> None:
    tensor = torch.tensor([-3.0, 0.0, 1.0, 9.0]).reshape(1, 1, 2, 2)
    assert np.asarray(sheet_of(tensor, (0.0, 2.0), Layout(columns=1, scale=1, gap=0))).tolist() == [[0, 0], [128, 255]]


def test_three_channels_give_a_colour_picture(tmp_path: Path) -> None:
    images = load(write(tmp_path / "rgb.safetensors", channels=3))([0, 1], steps=2)
    assert [picture.mode for picture in images.images] == ["RGB", "RGB"]
    assert np.array_equal(np.asarray(images.images[1]), images.pixels[1])
    with Image.open(images.save(tmp_path / "x.png")) as picture:
        assert picture.mode == "RGB"


def test_two_channels_are_no_picture(tmp_path: Path) -> None:
    images = load(write(tmp_path / "two.safetensors", channels=2))([0], steps=2)
    with pytest.raises(fs.InvalidInput, match="1 or 3 channels, these images have 2"):
        images.save(tmp_path / "x.png")


def test_the_picture_of_the_default_layout_is_nearly_square(pipe: Pipeline) -> None:
    assert pipe([0] * 10, steps=2).layout() == Layout(columns=3, scale=16, gap=1)


@pytest.mark.parametrize(("width", "height", "scale"), [(8, 8, 64), (96, 64, 5), (64, 200, 2), (600, 9, 1)])
def test_one_picture_is_enlarged_by_whole_factors_to_fit_into_512_pixels(width: int, height: int, scale: int) -> None:
    layout = Layout.fitting(1, width, height=height)
    assert layout.size(1, height, width) == (scale * width, scale * height)
    assert Layout.fitting(2, width, height=height).scale == max(1, 64 // width)


def test_images_are_printed_in_one_line(pipe: Pipeline) -> None:
    images = pipe([0, 1, 2], sampler="ddim", steps=5, guidance=3.0)
    seconds = f"{images.seconds:.2f} s"
    assert str(images) == f"<3 images by {pipe.name}, 4 x 4: ddim, NFE 10 each, {seconds}>"
    assert repr(images[1]).startswith(f"<1 image by {pipe.name}, 4 x 4: ddim, NFE 10")
    assert "plan" not in repr(pipe([0], sampler=pipe.plan("heun", steps=2)))


def test_a_picture_too_large_for_memory_is_refused() -> None:
    with pytest.raises(fs.InvalidInput, match="use a scale below 64, or draw fewer or smaller images"):
        Layout(columns=100, scale=64).size(10_000, 8, 8)


def test_images_are_taken_by_index(pipe: Pipeline) -> None:
    images = pipe([0, 1, 2], steps=2)
    assert len(images) == 3
    assert torch.equal(images[-1].tensor, images.tensor[2:])
    assert [one.subjects for one in images] == [(0,), (1,), (2,)]
    assert images.take([2, 0]).take([1]).kept == (0,)
    with pytest.raises(IndexError):
        images[3]


def test_the_recipe_in_the_file_is_readable_text(pipe: Pipeline, tmp_path: Path) -> None:
    path = pipe([2], steps=5, sampler="ddim", seed=3).save(tmp_path / "new" / "x.png")
    text = json.loads(text_of(path))
    drawing = text["drawing"]
    assert (drawing["sampling"]["sampler"], drawing["sampling"]["steps"]) == ("ddim", 5)
    assert (drawing["seed"], drawing["labels"]) == (3, [2])
    assert text["made"]["model_digest"] == pipe.model.digest
    assert read(path).layout == Layout(columns=1, scale=64, gap=0)


def test_an_interrupted_write_leaves_the_old_file_and_no_other(
    pipe: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, folder = pipe([0], steps=2), tmp_path / "out"
    path = images.save(folder / "x.png")
    before = path.read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pipe([1], steps=2).save(path)
    assert [file.name for file in folder.iterdir()] == ["x.png"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["x.jpg", "x", "x.png.txt"])
def test_pictures_are_png(pipe: Pipeline, tmp_path: Path, name: str) -> None:
    with pytest.raises(fs.InvalidInput, match=r"give a path that ends in \.png"):
        pipe([0], steps=2).save(tmp_path / name)
