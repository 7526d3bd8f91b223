"""What `fewstep compare` found: its table, its JSON, and its picture, strips of images with heads and captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

import fewstep as fs
from fewstep.core import InvalidInput

BACKGROUND, TEXT, FAINT = (24, 24, 27), (236, 236, 240), (160, 160, 170)
HEAD, CAPTION, MARGIN, SPACE = 18, 14, 24, 20
MAX_PIXELS = 64_000_000
SHOWN, TILE = 6, 48
"""Images in each strip of several columns, and about how many pixels wide each is."""
SHOWN_ALONE, TILE_ALONE = 12, 64
"""The same where there is one column."""
FORMATS = {"distance": ".4f", "saturated": ".2%", "chroma": ".4f"}
BEHIND = "behind the best by"
"""The column of paired differences."""


class Outcome(NamedTuple):
    """One run from the noise that all have: what tells it from the others, and what was measured, unless it is lost."""

    facts: Mapping[str, Any]
    images: fs.pipeline.Images
    figures: Mapping[str, Any] | None


def outcome(
    draw: Callable[[], fs.pipeline.Images],
    facts: Mapping[str, Any],
    figures: Callable[[fs.pipeline.Images], Mapping[str, Any]],
) -> Outcome:
    """What `draw` gives, measured by `figures` where all of it is finite."""
    try:
        images = draw()
    except fs.pipeline.LostImages as lost:
        return Outcome(facts, lost.everything, None)
    return Outcome(facts, images, figures(images))


@dataclass(frozen=True)
class Comparison:
    """All runs.

    Attributes:
        head: of the JSON; `notes`: for people.
        count: images of each subject; `reference`: the converged images, where the runs are measured against some.
        verdict: on guidance scales, where something tells the better one.
    """

    pipe: fs.Pipeline
    outcomes: Sequence[Outcome]
    head: Mapping[str, Any]
    notes: Sequence[str]
    count: int = 1
    reference: fs.pipeline.Images | None = None
    verdict: fs.benchmark.Verdict | None = None

    @property
    def measured(self) -> tuple[str, ...]:
        """The names of figures that are there."""
        return ("saturated", "chroma") if self.reference is None else ("distance",)

    def table(self) -> tuple[list[str], list[list[str]], list[str]]:
        """Columns, rows, and the columns of numbers."""
        told = [name for name in self.outcomes[0].facts if name != "stochastic"]
        judged = [] if self.verdict is None else [self.verdict.name, BEHIND]
        heads = [*told, "NFE", *self.measured, *judged, "seconds"]
        return (
            heads,
            [[self._cell(one, head) for head in heads] for one in self.outcomes],
            heads[told[0] == "sampler" :],
        )

    def report(self) -> dict[str, Any]:
        """Plain JSON values."""
        verdict = {} if self.verdict is None else {"verdict": self.verdict.to_json()}
        return {
            "model": self.pipe.name,
            "model_digest": self.pipe.model.digest,
            "images": len(self.outcomes[0].images),
            **self.head,
            "results": [
                {
                    **one.facts,
                    "nfe": one.images.nfe,
                    **{name: (one.figures or {}).get(name) for name in self.measured},
                    **({"adherence": _adherence(one)} if self.reference is None else {}),
                    "seconds": round(one.images.seconds, 4),
                }
                for one in self.outcomes
            ],
            **verdict,
        }

    def picture(self) -> Image.Image:
        """Samplers over steps with the reference last, or a row for each scale; each cell shows the same images."""
        if self.reference is None:
            steps, sampler = self.head["steps"], self.head["sampler"]
            method = self.head["guidance_method"]
            head = f"{sampler}, {_steps(steps)}" + ("" if method == "cfg" else f", {method}")
            cells = [[Cell(self._strip(one.images), _caption(one))] for one in self.outcomes]
            return draw([f"guidance {one.facts['guidance']:g}" for one in self.outcomes], [head], cells)
        names = list(dict.fromkeys(one.facts["sampler"] for one in self.outcomes))
        steps = list(dict.fromkeys(one.facts["steps"] for one in self.outcomes))
        last = Cell(self._strip(self.reference), "")
        cells = [
            [Cell(self._strip(one.images), _caption(one)) for one in self.outcomes if one.facts["sampler"] == name]
            + [last]
            for name in names
        ]
        return draw(names, [*map(_steps, steps), f"converged ({self.head['reference']['steps']} steps)"], cells)

    def _cell(self, one: Outcome, head: str) -> str:
        """What stands in a column of a run."""
        if self.verdict is None or head not in (self.verdict.name, BEHIND):
            return _cell(one, head)
        rung = next(rung for rung in self.verdict.rungs if rung.scale == one.facts["guidance"])
        if rung.figure is None:
            return "not finite"
        found = rung.figure if head == self.verdict.name else rung.behind
        return fs.benchmark.told(
            self.verdict.name, found if rung.scale != self.verdict.best or head != BEHIND else None
        )

    def _strip(self, images: fs.pipeline.Images) -> Image.Image:
        """One image of some subjects, evenly picked."""
        most, tile = (SHOWN_ALONE, TILE_ALONE) if self.reference is None else (SHOWN, TILE)
        subjects = len(images) // self.count
        shown = min(most, subjects)
        indices = [self.count * round(i * (subjects - 1) / max(1, shown - 1)) for i in range(shown)]
        scale = max(1, tile // images.tensor.shape[-1])
        layout = fs.drawing.Layout(columns=shown, scale=scale, gap=1)
        return fs.pipeline.sheet_of(images.tensor[indices].nan_to_num(), images.value_range, layout)


def _steps(steps: int) -> str:
    return f"{steps} step{'' if steps == 1 else 's'}"


def _adherence(one: Outcome) -> float | None:
    """The share of pictures that are right, where that was measured."""
    figure = (one.figures or {}).get("figure")
    return figure.value if figure is not None and figure.measure == "adherence" else None


def _cell(one: Outcome, head: str) -> str:
    if head in one.facts:
        value = one.facts[head]
        star = " *" if head == "sampler" and one.facts["stochastic"] else ""
        return f"{value:g}" if isinstance(value, float) else f"{value}{star}"
    if head == "NFE":
        return f"{one.images.nfe:g}"
    if head == "seconds":
        return f"{one.images.seconds:.3f}"
    if one.figures is None:
        return "not finite"
    return format(one.figures[head], FORMATS[head])


def _caption(one: Outcome) -> str:
    if one.figures is None:
        return f"NFE {one.images.nfe:g}   not finite"
    short = {"distance": ".3f", "saturated": ".1%", "chroma": ".3f"}
    words = [f"{name} {format(value, short[name])}" for name, value in one.figures.items() if name in short]
    figure = one.figures.get("figure")
    if figure is not None:
        words.append(f"{figure.measure} {figure.value:{'.0%' if figure.measure == 'adherence' else '.3g'}}")
    return "   ".join([f"NFE {one.images.nfe:g}", *words])


class Cell(NamedTuple):
    """A strip of images and what stands below it."""

    strip: Image.Image
    caption: str


def draw(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Cell]]) -> Image.Image:
    """A picture of `cells[row][column]` with a name before each row and above each column. Strips have one size."""
    head, caption = ImageFont.load_default(HEAD), ImageFont.load_default(CAPTION)

    def width(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
        return round(font.getlength(text))

    strip = cells[0][0].strip
    left = MARGIN + max(width(name, head) for name in rows) + SPACE
    texts = [*(width(name, head) for name in columns), *(width(c.caption, caption) for row in cells for c in row)]
    across = max(strip.width, *texts) + SPACE
    top, below = MARGIN + 2 * HEAD, round(1.6 * CAPTION)
    down = strip.height + below + SPACE
    size = (left + len(columns) * across - SPACE + MARGIN, top + len(rows) * down - SPACE + MARGIN)
    if size[0] * size[1] > MAX_PIXELS:
        raise InvalidInput(f"a picture of {size[0]} x {size[1]} pixels is too large: compare fewer samplers or steps")
    picture = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(picture)
    for c, name in enumerate(columns):
        pen.text((left + c * across, MARGIN), name, TEXT, head)
    for r, (name, row) in enumerate(zip(rows, cells, strict=True)):
        y = top + r * down
        pen.text((MARGIN, y + strip.height / 2), name, TEXT, head, anchor="lm")
        for c, cell in enumerate(row):
            picture.paste(cell.strip, (left + c * across, y))
            pen.text((left + c * across, y + strip.height + below), cell.caption, FAINT, caption, anchor="ls")
    return picture
