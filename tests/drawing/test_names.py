"""The names of pictures: short, and such as any file system takes."""

from pathlib import Path

import pytest

from fewstep.drawing import Guidance, Sampling, names
from fewstep.drawing.drawing import Drawing


@pytest.mark.parametrize(
    ("subject", "title"),
    [
        ("A red circle, left of a blue square", "a-red-circle-left-of-a-blue-square"),
        ("../../etc/passwd", "etc-passwd"),
        ("\u2713\n", "image"),
        ("x" * 100, "x" * 40),
        ("CON: nul?", "con-nul"),
        (None, "none"),
        (7, "label7"),
    ],
)
def test_a_title_is_a_few_plain_letters(subject: str | int | None, title: str) -> None:
    assert names.title(subject) == title
    assert names.one_of(3, subject) == f"0003-{title}.png"
    assert names.in_batch(3, subject, 9) == f"000003-{title}-seed9.png"


def test_another_drawing_has_another_name() -> None:
    sampling = Sampling("ddim", steps=4, grid="trailing")
    one = Drawing(labels=(1,), height=4, width=4, sampling=sampling, guidance=Guidance(1.0))
    first, second = names.picture("digits", one), names.picture("digits", one.but(seed=1))
    assert first.parent == second.parent == Path("out")
    assert first.name.startswith("digits-ddim-4-")
    assert first != second
    digest = "0123456789abcdef"
    assert names.task(Path("a/cat.jpg"), "inpaint", "sd", digest) == Path("out/cat-inpaint-sd-01234567.png")
    assert names.between("sd", digest) == Path("out/sd-interpolate-01234567.png")
    assert names.again(Path("a/cat.png"), digest) == Path("out/cat-again-01234567.png")
    assert len(names.task(Path("x" * 300 + ".png"), "inpaint", "sd", digest).name) < 150
