"""Pictures from outside: what is refused before a pixel is decoded, and what each kind of picture becomes."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fewstep import InvalidInput
from fewstep.pipeline import pictures as reading
from fewstep.pipeline import read_picture


def colours(tensor: torch.Tensor) -> np.ndarray:
    """(H, W, 3) in 0 .. 255."""
    return ((tensor[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def bomb(path: Path, side: int) -> Path:
    """A PNG of a few bytes whose header promises side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))
    path.write_bytes(content + chunk(b"IEND", b""))
    return path


def test_pixels_of_the_right_size_come_through_exactly(tmp_path: Path) -> None:
    array = noise(6, 8)
    Image.fromarray(array).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(array)):
        found = read_picture(source, (6, 8), "exact")
        assert found.shape == (1, 3, 6, 8)
        assert found.dtype == torch.float32
        assert np.array_equal(colours(found), array)
    assert torch.equal(read_picture(found[0], (6, 8)), found)


def test_a_camera_held_upright_is_turned(tmp_path: Path) -> None:
    array = np.zeros((4, 8, 3), np.uint8)
    array[:, :4] = 255  # as stored: light on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(array).save(tmp_path / "a.jpg", exif=exif, quality=100)
    found = colours(read_picture(tmp_path / "a.jpg", (8, 4), "exact"))
    assert found[:3].min() > 240
    assert found[5:].max() < 15


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_lie_over_white(mode: str) -> None:
    array = np.zeros((2, 2, 4), np.uint8)
    array[..., 3] = [[0, 255], [51, 255]]  # black, of 0, 1 and 0.2
    found = colours(read_picture(Image.fromarray(array).convert(mode), (2, 2)))
    assert found[..., 0].tolist() == [[255, 0], [204, 0]]


def test_a_palette_with_a_transparent_colour_lies_over_white(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "a.png", transparency=0)
    assert colours(read_picture(tmp_path / "a.png", (1, 2))).tolist() == [[[255] * 3, [10, 20, 30]]]


def test_other_kinds_of_pixels_become_red_green_and_blue(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65535], [32768, 257]], np.uint16)).save(tmp_path / "deep.png")
    assert colours(read_picture(tmp_path / "deep.png", (2, 2)))[..., 1].tolist() == [[0, 255], [128, 1]]
    assert colours(read_picture(Image.new("1", (2, 2), 1), (2, 2))).min() == 255
    assert colours(read_picture(Image.new("L", (2, 2), 7), (2, 2))).tolist() == [[[7] * 3] * 2] * 2
    assert colours(read_picture(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), (1, 1))).tolist() == [[[255, 0, 0]]]


def test_a_picture_is_cut_in_the_middle_or_stretched() -> None:
    array = np.zeros((4, 8, 3), np.uint8)
    array[:, 2:6] = 255
    image = Image.fromarray(array)
    assert colours(read_picture(image, (4, 4), "crop")).min() == 255
    stretched = colours(read_picture(image, (4, 4), "stretch"))[..., 0]
    assert stretched[0, 0] < 60
    assert stretched[0, 1] > 200
    with pytest.raises(InvalidInput, match="8 x 4 pixels and 4 x 4 are needed"):
        read_picture(image, (4, 4), "exact")


@pytest.mark.parametrize("side", [10_000, 12_000, 65_000])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(reading, "_loaded", never)
    with pytest.raises(InvalidInput, match="67,108,864"):
        read_picture(bomb(tmp_path / "a.png", side), (8, 8))
    with pytest.raises(InvalidInput, match="67,108,864"):
        read_picture(Image.new("1", (9000, 9000)), (8, 8))


def test_files_that_are_no_whole_picture_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(noise(40, 40)).save(good)
    for name, content, words in [
        ("empty.png", b"", "not a picture that is read here"),
        ("text.png", b"hello" * 100, "not a picture that is read here"),
        ("cut.png", good.read_bytes()[:2000], "damaged or not whole"),
        ("header.png", good.read_bytes()[:20], "not a picture that is read here"),
        ("promise.png", bomb(tmp_path / "b.png", 4000).read_bytes(), "damaged or not whole"),
        ("vector.svg", b"<svg/>", "not a picture that is read here"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInput, match=words):
            read_picture(tmp_path / name, (8, 8))
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.png", save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidInput, match="animation"):
        read_picture(tmp_path / "two.png", (4, 4))
    frames[0].save(tmp_path / "a.gif")
    with pytest.raises(InvalidInput, match="PNG, JPEG, WEBP, BMP"):
        read_picture(tmp_path / "a.gif", (4, 4))
    with pytest.raises(InvalidInput, match="a folder"):
        read_picture(tmp_path, (4, 4))
    with pytest.raises(FileNotFoundError):
        read_picture(tmp_path / "none.png", (4, 4))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (3, "a path, a PIL.Image, an array, a tensor or a drawn image, got int"),
        (np.zeros((3, 4, 4), np.uint8)[:, :, :0], "of 1 to 4 channels"),
        (np.zeros((3, 8, 8), np.uint8), r"of 1 to 4 channels, got \(3, 8, 8\): give a tensor where the channels come"),
        (np.zeros((2, 4, 4, 3), np.uint8), "of 1 to 4 channels"),
        (np.zeros((4, 4, 3), np.int64), r"bytes \(uint8\), or numbers in \[0, 1\], got int64"),
        (np.array([["a"]]), "or numbers in"),
        (np.full((4, 4, 3), 255.0), r"lies in \[0, 1\], got 255 .. 255"),
        (np.full((4, 4, 3), -1e-3), r"lies in \[0, 1\], got -0.001"),
        (np.full((4, 4, 3), np.nan), r"lies in \[0, 1\], got nan"),
        (None, "got NoneType"),
        (torch.zeros(3, 4, 5), "must have shape"),
        (torch.zeros(2, 3, 4, 4), "must have shape"),
        (torch.full((3, 4, 4), 2.0), r"lie in \[-1, 1\], got 2"),
        (torch.full((3, 4, 4), float("nan")), r"lie in \[-1, 1\]"),
        (Image.new("F", (4, 4)), "of kind 'F'"),
        (Image.new("RGB", (0, 4)), "0 x 4 pixels"),
    ],
)
def test_wrong_pictures_in_memory_are_refused(source: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        read_picture(source, (4, 4))


def test_an_array_of_bytes_or_of_shares_is_a_picture() -> None:
    array = noise(6, 8)
    for source in (array, array[None], array.astype(np.float32) / 255, array.astype(np.float64) / 255):
        assert np.array_equal(colours(read_picture(source, (6, 8), "exact")), array)
    grey = colours(read_picture(array[..., 0], (6, 8), "exact"))
    assert np.array_equal(grey, np.repeat(array[..., :1], 3, axis=2))
    assert np.array_equal(colours(read_picture(array[..., :1], (6, 8), "exact")), grey)
    clear = np.dstack([array, np.zeros((6, 8), np.uint8)])
    assert colours(read_picture(clear, (6, 8))).min() == 255
    assert colours(read_picture(np.ones((6, 8), bool), (6, 8))).min() == 255


def test_a_pipe_and_a_device_are_no_pictures(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    for path in (tmp_path / "a.png", "/dev/zero"):
        with pytest.raises(OSError, match=", and only regular files are read"):
            read_picture(path, (4, 4))


def test_a_file_that_is_too_long_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 10)
    (tmp_path / "a.png").write_bytes(b"x" * 11)
    with pytest.raises(InvalidInput, match="has 11 bytes"):
        read_picture(tmp_path / "a.png", (4, 4))
