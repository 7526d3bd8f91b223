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
from fewstep.drawing import Drawing, Guidance, Layout, Made, Sampling, Stamp, read, save_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"

Content = dict[str, Any]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    drawing = Drawing(
        labels=(0, 1),
        height=4,
        width=4,
        sampling=Sampling("ddim", steps=2, grid="trailing", eta=0.5),
        guidance=Guidance(2.0),
    )
    made = Made(model="tiny", model_digest="0" * 16, plan="1" * 16, batch=100, pixels="2" * 16)
    stamp = Stamp(drawing=drawing, made=made, layout=Layout(columns=2, scale=16))
    return save_png(Image.new("L", (3, 3)), tmp_path / "x.png", stamp.text)


def text_of(picture: Path) -> str:
    with Image.open(picture) as image:
        return image.info["fewstep"]


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
        (b"", "is not a PNG picture"),
        (b"GIF89a", "is not a PNG picture"),
        (SIGNATURE, "is not a PNG picture, or it is damaged"),
        (png(), "carries no recipe"),
        (png(chunk(b"tEXt", b"Comment\0hello")), "carries no recipe"),
        (png(chunk(b"tEXt", b"fewstep\0" + b" " * (1 << 26))), "not a PNG picture|carries no recipe|cannot be used"),
        (png(chunk(b"zTXt", b"fewstep\0\0" + zlib.compress(b" " * (1 << 26)))), "or it is damaged|carries no recipe"),
        (png(chunk(b"zTXt", b"fewstep\0\0" + b"nonsense")), "is not JSON"),
        (png(chunk(b"iTXt", b"fewstep\0\0\0\0\0\xff\xfe")), "damaged|carries no recipe"),
        (png(chunk(b"tEXt", b"fewstep\0{}")[:-1] + b"?"), "damaged"),
        (SIGNATURE + struct.pack(">I", 1000) + b"tEXtfewstep", "damaged"),
        (png(chunk(b"tEXt", b"fewstep\0no json")), "is not JSON"),
        (png(chunk(b"tEXt", b"fewstep\0" + b"[" * 100_000)), "is not JSON"),
        (png(chunk(b"tEXt", b'fewstep\0{"format": NaN}')), "NaN is not JSON"),
        (png(chunk(b"tEXt", b"fewstep\0[1]")), r"the recipe is \[1\]"),
        (png(chunk(b"tEXt", b'fewstep\0{"format": 1}')), "format has to be 2, got 1"),
        (png(chunk(b"tEXt", b'fewstep\0{"format": 3}')), "format has to be 2, got 3"),
        (png(chunk(b"tEXt", b'fewstep\0{"format": true}')), "format has to be 2, got True"),
        (png(chunk(b"tEXt", b'fewstep\0{"format": 2}')), "the recipe lacks drawing"),
    ],
)
def test_a_file_without_a_sound_recipe_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(fs.InvalidInput, match=message):
        read(path)


def test_the_pixels_of_a_picture_are_never_decoded(picture: Path) -> None:
    text = text_of(picture).encode()
    expected = read(picture)

    def write(side: int) -> None:
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        body = chunk(b"tEXt", b"fewstep\0" + text) + chunk(b"IDAT", b"nonsense") + chunk(b"IEND", b"")
        picture.write_bytes(SIGNATURE + header + body)

    write(8000)
    assert read(picture) == expected
    for side in (12_000, 65_000, 2**31 - 1):
        write(side)
        with pytest.raises(fs.InvalidInput, match="is not a PNG picture, or it is damaged"):
            read(picture)


def test_text_behind_the_pixels_is_found_only_where_they_are_few(picture: Path) -> None:
    text = chunk(b"tEXt", b"fewstep\0" + text_of(picture).encode())
    expected, pixels = read(picture), chunk(b"IDAT", zlib.compress(b"\0\0"))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    picture.write_bytes(SIGNATURE + header + pixels + text + chunk(b"IEND", b""))
    assert read(picture) == expected
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8001, 8001, 8, 0, 0, 0, 0))
    picture.write_bytes(SIGNATURE + header + pixels + text + chunk(b"IEND", b""))
    with pytest.raises(fs.InvalidInput, match="carries no recipe"):
        read(picture)


def drawing(change: Callable[[Content], Any]) -> Callable[[Content], None]:
    return lambda content: change(content["drawing"])


def made(change: Callable[[Content], Any]) -> Callable[[Content], None]:
    return lambda content: change(content["made"])


EDITS: list[tuple[str, Callable[[Content], None], str]] = [
    ("an unknown field", lambda c: c.update(extra=1), "unknown field of the recipe 'extra'"),
    ("a misspelt field", drawing(lambda d: d.update(promts=["a"])), "promts'.* did you mean 'prompts'"),
    ("no layout", lambda c: c.pop("layout"), "the recipe lacks layout"),
    ("a huge scale", lambda c: c["layout"].update(scale=10**9), r"layout\.scale has to be less .* 64, got 1000000000"),
    ("a true scale", lambda c: c["layout"].update(scale=True), r"layout\.scale has to be a valid integer, got True"),
    ("a short digest", made(lambda m: m.update(pixels="abc")), r"made\.pixels .*got 'abc'"),
    ("no text", made(lambda m: m.update(torch=5)), r"made\.torch has to be a valid string, got 5"),
    ("control characters", made(lambda m: m.update(torch="a\x1b[2J")), r"made\.torch"),
    ("a drawing that is a list", lambda c: c.update(drawing=[]), r"drawing .*got \[\]"),
    ("a huge batch", made(lambda m: m.update(batch=10**6)), r"made\.batch has to be less .* 1024, got 1000000"),
    ("another driver", made(lambda m: m.update(driver="magic")), r"made\.driver has to be 'eager' or 'slots'"),
    ("a model's path", made(lambda m: m.update(model_digest="../../etc/passwd")), r"made\.model_digest"),
    ("no labels", drawing(lambda d: d.update(labels=[])), r"drawing\.labels"),
    ("too many labels", drawing(lambda d: d.update(labels=[0] * 10_001)), r"drawing\.labels .*10000"),
    ("a label that is text", drawing(lambda d: d.update(labels=["0"])), r"drawing\.labels\.0 .*got '0'"),
    ("a negative seed", drawing(lambda d: d.update(seed=-1)), r"drawing\.seed .*got -1"),
    ("a seed too few", drawing(lambda d: d.update(seed=[1])), "one for each of the 2 images, got 1"),
    ("a million images", drawing(lambda d: d.update(count=10_000)), "1 to 10,000 images, got 20,000"),
    ("no scale", drawing(lambda d: d["guidance"].update(scale=None)), r"drawing\.guidance\.scale .*got None"),
    ("a huge number", drawing(lambda d: d["guidance"].update(scale=10**400)), r"drawing\.guidance\.scale"),
    ("an empty interval", drawing(lambda d: d["guidance"].update(interval=[2, 1])), r"guidance\.interval: it needs"),
    ("a long interval", drawing(lambda d: d["guidance"].update(interval=[2, 1, 1])), r"guidance\.interval"),
    ("a rescale of 2", drawing(lambda d: d["guidance"].update(options={"rescale": 2})), "rescale must lie"),
    ("endless steps", drawing(lambda d: d["sampling"].update(steps=10**9)), r"sampling\.steps .*got 1000000000"),
    ("no steps", drawing(lambda d: d["sampling"].update(steps=None)), "exactly one of steps, times and .*got none"),
    ("an unknown sampler", drawing(lambda d: d["sampling"].update(sampler="dimm")), "unknown sampler 'dimm'"),
    ("an unknown grid", drawing(lambda d: d["sampling"].update(grid="x")), "unknown grid 'x'"),
    ("nested options", drawing(lambda d: d["sampling"].update(options={"eta": [[1]]})), r"sampling\.options"),
    ("many options", drawing(lambda d: d["sampling"].update(options={str(i): i for i in range(99)})), "at most 32"),
    ("a schedule", drawing(lambda d: d["sampling"].update(options={"schedule": 1})), "schedule is not an option of"),
    ("times of text", drawing(lambda d: d["sampling"].update(times=["a", "b"])), r"sampling\.times\.0 .*got 'a'"),
    ("a plan of another format", drawing(lambda d: d["sampling"].update(plan={"format": 9})), "not a plan of format"),
    ("a plan of text", drawing(lambda d: d["sampling"].update(plan="text")), r"sampling\.plan"),
    ("a plan and a sampler", drawing(lambda d: d["sampling"].update(plan="0" * 16)), "already decides sampler"),
    ("an unknown task", drawing(lambda d: d.update(source={"task": "copy", "picture": "0" * 16})), r"source\.task"),
    ("a mask alone", drawing(lambda d: d.update(source=MASKED)), "a mask is for inpaint"),
]  # fmt: skip
MASKED = {"task": "img2img", "picture": "0" * 16, "mask": "0" * 16}


@pytest.mark.parametrize(("edit", "message"), [e[1:] for e in EDITS], ids=[e[0] for e in EDITS])
def test_an_edited_recipe_is_refused_by_field(picture: Path, edit: Callable[[Content], None], message: str) -> None:
    content = json.loads(text_of(picture))
    edit(content)
    picture.write_bytes(png(chunk(b"tEXt", b"fewstep\0" + json.dumps(content).encode())))
    with pytest.raises(fs.InvalidInput, match=message):
        read(picture)
