"""What tells a better guidance scale: the figures are those that the rest of the package gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewstep as fs
from fewstep.benchmark.real import real_pictures
from fewstep.benchmark.yardstick import Adherence, Distance, yardstick_of
from fewstep.measure import ClipScore, Summary, frechet_distance, kernel_distance
from fewstep.zoo.scenes.picture import picture
from fewstep.zoo.scenes.scene import placed
from models.tiny_diffusers import tiny_clip

from .guided import MEAN, SHAPE, of_classes, of_words, real


def test_adherence_is_the_share_that_the_reader_of_scenes_finds_right() -> None:
    known = fs.scenes.held_out_prompts(6)
    rng = np.random.default_rng(0)
    painted = np.stack([picture(placed(prompt.description, rng)) for prompt in known])
    painted[0] = 255 - painted[0]
    pictures = torch.from_numpy(painted).permute(0, 3, 1, 2).float() / 127.5 - 1
    texts = [prompt.text for prompt in known]
    own = Adherence(known)
    figure = own.figure(own.read(pictures, texts), texts)
    assert figure.value == fs.scenes.adherence(list(painted), known) == pytest.approx(5 / 6)


def test_the_distance_of_digits_is_the_frechet_distance_of_a_bench() -> None:
    pipe = fs.load("digits")
    own = yardstick_of(pipe)
    assert isinstance(own, Distance)
    pictures = torch.rand(320, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    summary = Summary(own.features)
    summary.update(pictures)
    figure = own.figure(own.read(pictures, [0] * 320), [0] * 320)
    assert (own.name, own.least) == ("distance", 320)
    assert figure == frechet_distance(summary, own.real)
    with pytest.raises(fs.InvalidInput, match="100 images are too few for a distance, which needs 320"):
        own.figure(torch.zeros(100, 32), [0] * 100)


def test_the_distance_to_given_pictures_is_the_kernel_distance() -> None:
    pipe, pictures = of_classes(), real(0.2, 40)
    own = yardstick_of(pipe, data=real(MEAN))
    assert own.name == "kernel distance"
    summary = Summary(own.features)  # type: ignore[attr-defined]
    summary.update(pictures)
    wanted = kernel_distance(summary, own.real)  # type: ignore[attr-defined]
    assert own.figure(own.read(pictures, [0] * 40), [0] * 40).value == pytest.approx(wanted.value)
    assert own.digest != yardstick_of(pipe, data=real(0.2)).digest


def test_pictures_of_a_folder_are_fitted_to_the_size_and_the_colours(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    Image.new("RGB", (6, 4), (0, 255, 255)).save(tmp_path / "a.png")
    Image.new("L", (2, 2), 255).save(tmp_path / "more" / "b.PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    (found,) = real_pictures(tmp_path, SHAPE)
    assert found.shape == (2, 1, 2, 2)
    assert found[0].unique().tolist() == pytest.approx([1 / 3], abs=1e-6)
    assert found[1].unique().tolist() == [1.0]
    (found,) = real_pictures(tmp_path, (3, 2, 2))
    assert found[0, :, 0, 0].tolist() == [-1.0, 1.0, 1.0]
    (tmp_path / "c.png").write_bytes(b"no picture")
    with pytest.raises(fs.InvalidInput, match=r"c\.png is not a picture"):
        list(real_pictures(tmp_path, SHAPE))
    (tmp_path / "empty").mkdir()
    with pytest.raises(fs.InvalidInput, match="empty holds no pictures"):
        list(real_pictures(tmp_path / "empty", SHAPE))


def test_with_a_folder_of_clip_its_score_or_its_features_decide(tmp_path: Path) -> None:
    clip = tiny_clip(tmp_path / "clip")
    pipe, texts = of_words(), ["a red circle", "a blue square"]
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    own = yardstick_of(pipe, clip=clip)
    values = own.read(pictures, texts)
    assert values[:, 0].tolist() == ClipScore(clip)(pictures, texts).tolist()
    figure = own.figure(values, texts)
    assert (own.name, figure.better, figure.value) == ("clip score", "more", pytest.approx(float(values.mean())))
    near = yardstick_of(of_classes(), clip=clip, data=real(MEAN))
    assert isinstance(near, Distance)
    assert (near.features.name, near.name, near.read(real(0.2, 3), [0] * 3).shape) == (
        "clip",
        "kernel distance",
        (3, 12),
    )
