"""The text in a PNG, as it comes from elsewhere: damaged, edited, hostile."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import fewstep as fs
from fewstep.pipeline import Pipeline, read
from fewstep.pipeline.png import SIGNATURE, TEXT_LIMIT

from .tiny import text_of

Content = dict[str, Any]


@pytest.fixture
def picture(pipe: Pipeline, tmp_path: Path) -> Path:
    return pipe([0, 1], steps=2).save(tmp_path / "x.png")


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return SIGNATURE + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("international", [False, True])
def test_text_that_another_program_rewrote_is_still_read(picture: Path, zipped: bool, international: bool) -> None:
    text = text_of(picture)
    info = PngInfo()
    info.add_text("Software", "another program")
    if international:
        info.add_itxt("fewstep", text, "en", "fewstep", zip=zipped)
    else:
        info.add_text("fewstep", text, zip=zipped)
    expected = read(picture)
    Image.new("L", (3, 3)).save(picture, pnginfo=info)
    assert read(picture) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no PNG picture"),
        (b"GIF89a", "is no PNG picture"),
        (SIGNATURE, "carries no recipe"),
        (png(), "carries no recipe"),
        (png(chunk(b"tEXt", b"Comment\0hello")), "carries no recipe"),
        (png(chunk(b"tEXt", b"fewstep\0" + b" " * TEXT_LIMIT)), "carries no recipe"),
        (png(chunk(b"zTXt", b"fewstep\0\0" + zlib.compress(b" " * (TEXT_LIMIT + 1)))), "inflates to more than"),
        (png(chunk(b"zTXt", b"fewstep\0\0" + b"nonsense")), "is damaged"),
        (png(chunk(b"iTXt", b"fewstep\0\0\0\0\0\xff\xfe")), "is damaged"),
        (png(chunk(b"tEXt", b"fewstep\0{}")[:-1] + b"?"), "checksum of its tEXt chunk is wrong"),
        (SIGNATURE + struct.pack(">I", 1000) + b"tEXtfewstep", "checksum of its tEXt chunk is wrong"),
        (png(chunk(b"tEXt", b"fewstep\0no json")), "it is no JSON"),
        (png(chunk(b"tEXt", b"fewstep\0" + b"[" * 100_000)), "it is no JSON"),
        (png(chunk(b"tEXt", b'fewstep\0{"format": NaN}')), "NaN is not JSON"),
        (png(chunk(b"tEXt", b"fewstep\0[1]")), r"format is '\[1\]', this fewstep reads 1"),
        (png(chunk(b"tEXt", b'fewstep\0{"format": 2}')), "format is '2', this fewstep reads 1"),
        (png(chunk(b"tEXt", b'fewstep\0{"format": 1}')), "lacks .*recipe"),
    ],
)
def test_a_file_without_a_sound_recipe_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(fs.InvalidInput, match=message):
        read(path)


def test_the_pixels_of_a_picture_are_never_decoded(picture: Path) -> None:
    text = text_of(picture).encode()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 0, 0, 0, 0))
    expected = read(picture)
    picture.write_bytes(SIGNATURE + header + chunk(b"tEXt", b"fewstep\0" + text) + chunk(b"IEND", b""))
    assert read(picture) == expected


def recipe(change: Callable[[Content], None]) -> Callable[[Content], None]:
    return lambda content: change(content["recipe"])


EDITS: list[tuple[str, Callable[[Content], None], str]] = [
    ("an unknown field", lambda c: c.update(extra=1), r"unknown \['extra'\]"),
    ("no layout", lambda c: c.pop("layout"), r"lacks \['layout'\]"),
    ("a huge scale", lambda c: c["layout"].update(scale=10**9), "scale is 1000000000; it has to be .* 1 to 64"),
    ("a true scale", lambda c: c["layout"].update(scale=True), "scale is True"),
    ("a short digest", lambda c: c.update(pixels="abc"), "pixels is 'abc'; it has to be 16 hexadecimal"),
    ("no text", lambda c: c.update(torch=5), "torch is 5"),
    ("control characters", lambda c: c.update(torch="a\x1b[2J"), "printable"),
    ("a recipe that is a list", lambda c: c.update(recipe=[]), r"the recipe is \[\]"),
    ("a huge batch", recipe(lambda r: r.update(batch=10**6)), "batch is 1000000; it has to be .* 1 to 1024"),
    ("no labels", recipe(lambda r: r.update(labels=[])), "labels is"),
    ("too many labels", recipe(lambda r: r.update(labels=[0] * 10_001)), "labels is .*1 to 10000"),
    ("a label that is text", recipe(lambda r: r.update(labels=["0"])), "labels is"),
    ("a negative seed", recipe(lambda r: r.update(seed=-1)), "seed is -1"),
    ("a seed too few", recipe(lambda r: r.update(seed=[1])), "one for each of the 2 images, got 1"),
    ("a large index", recipe(lambda r: r.update(keep=[2])), "keep is"),
    ("a model's path", recipe(lambda r: r.update(model_digest="../../etc/passwd")), "model_digest is"),
    ("no scale", recipe(lambda r: r["guidance"].update(scale=None)), "scale is None"),
    ("a huge number", recipe(lambda r: r["guidance"].update(scale=10**400)), "scale is 1000"),
    ("an empty interval", recipe(lambda r: r["guidance"].update(interval=[2, 1])), "interval needs"),
    ("a long interval", recipe(lambda r: r["guidance"].update(interval=[2, 1, 1])), "interval is"),
    ("a rescale of 2", recipe(lambda r: r["guidance"].update(rescale=2)), "rescale is 2; .* 0 to 1"),
    ("endless steps", recipe(lambda r: r["plan"].update(steps=10**9)), "steps is 1000000000"),
    ("nested options", recipe(lambda r: r["plan"].update(options={"eta": [[1]]})), "options is"),
    ("many options", recipe(lambda r: r["plan"].update(options={str(i): i for i in range(99)})), "options is"),
    ("times of text", recipe(lambda r: r["plan"].update(times=["a", "b"])), "times is"),
]  # fmt: skip


@pytest.mark.parametrize(("edit", "message"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_an_edited_recipe_is_refused_by_field(picture: Path, edit: Callable[[Content], None], message: str) -> None:
    content = json.loads(text_of(picture))
    edit(content)
    picture.write_bytes(png(chunk(b"tEXt", b"fewstep\0" + json.dumps(content).encode())))
    with pytest.raises(fs.InvalidInput, match=message):
        read(picture)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (recipe(lambda r: r["plan"].update(sampler="dimm")), "unknown sampler 'dimm'"),
        (recipe(lambda r: r["plan"].update(grid="x")), "unknown grid 'x'"),
        (recipe(lambda r: r["plan"].update(options={"schedule": 1})), "'schedule' is no option"),
        (recipe(lambda r: r["plan"].update(options={"nonsense": 1})), "unknown option"),
        (recipe(lambda r: r["plan"].update(table={"format": 9})), "not a plan of format"),
        (recipe(lambda r: r["plan"].update(table="text")), "not a plan"),
        (recipe(lambda r: r.update(labels=[0, 7])), "no label 7"),
        (recipe(lambda r: r["guidance"].update(negative=7)), "no label 7"),
    ],
)
def test_a_sound_recipe_that_cannot_be_drawn_says_why(
    pipe: Pipeline, picture: Path, edit: Callable[[Content], None], message: str
) -> None:
    content = json.loads(text_of(picture))
    edit(content)
    picture.write_bytes(png(chunk(b"tEXt", b"fewstep\0" + json.dumps(content).encode())))
    with pytest.raises(fs.InvalidInput, match=message):
        pipe.redraw(read(picture).recipe)
