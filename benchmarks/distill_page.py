"""The table of docs/distill.md, from the figures that `distill_table.py` keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

BEGIN, END = "<!-- distill-table: written by `make distill-table` -->", "<!-- distill-table ends -->"
MORE = 4
BARS = {1: 0.2, 2: 1.5, 4: 10.0}
"""Per cent of the excess of the best sampler at as many evaluations, by these."""
Figures = Mapping[str, Any]


def written(floor: Figures, samplers: Mapping[int, Figures], students: Sequence[Figures]) -> str:
    """The table in Markdown.

    Args:
        floor: of the teacher itself; `samplers`: the best without training, by rows; `students`: each with every seed.
    """
    lines = [
        "| student | evaluations | seeds | distance to the teacher | above the floor, of the best sampler's "
        "| best sampler at as many | at four times as many | better than that | distance to real digits "
        "| training |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    kinds = by_seed(students)
    lines += [line(floor, samplers, seeds) for seeds in kinds]
    lines.append(
        f"| the teacher itself: the floor | 20 | | {shown(floor['teacher'])} | | | | | {shown(floor['real'])} | |"
    )
    return "\n".join([*lines, "", *found(floor, samplers, kinds)])


def line(floor: Figures, samplers: Mapping[int, Figures], seeds: Sequence[Figures]) -> str:
    """Of a student in some rows."""
    first = seeds[0]
    rows, base = first["rows"], floor["teacher"]["value"]
    values = [one["teacher"]["value"] for one in seeds]
    equal, more = (samplers.get(rows * times) for times in (1, MORE))
    middle = min(seeds, key=lambda one: abs(one["teacher"]["value"] - median(values)))
    spread = (
        shown(first["teacher"]) if len(seeds) == 1 else f"{median(values):.3f} ({min(values):.3f} to {max(values):.3f})"
    )
    share = "" if equal is None else per_cent((median(values) - base) / (equal["teacher"]["value"] - base))
    beats = "" if more is None else "yes" if max(values) < more["teacher"]["low"] else "no"
    cells = (
        first["name"],
        f"{rows}",
        f"{len(seeds)}",
        spread,
        share,
        "" if equal is None else f"{equal['teacher']['value']:.2f}, {equal['who']}",
        "" if more is None else f"{more['teacher']['value']:.2f}, {more['who']}",
        beats,
        f"{middle['real']['value']:.2f}",
        f"{first['steps']:,} steps",
    )
    return f"| {' | '.join(cells)} |"


def per_cent(share: float) -> str:
    """Of two digits, or all before the point."""
    return f"{100 * share:.0f}%" if abs(share) >= 1 else f"{100 * share:.2g}%"


def shown(figure: Figures) -> str:
    """A figure with its 95% interval."""
    return f"{figure['value']:.3f} ({figure['low']:.3f} to {figure['high']:.3f})"


def found(floor: Figures, samplers: Mapping[int, Figures], kinds: Sequence[Sequence[Figures]]) -> list[str]:
    """What the table says of the bars, a sentence each; of several seeds the median counts."""
    said = []
    for rows, most in BARS.items():
        own = [seeds for seeds in kinds if seeds[0]["rows"] == rows]
        if not own or rows not in samplers:
            continue
        base = floor["teacher"]["value"]
        best = min(own, key=middle_of)
        share = 100 * (middle_of(best) - base) / (samplers[rows]["teacher"]["value"] - base)
        held = "within" if share <= most else "above"
        said.append(
            f"- In {rows} evaluation{'s' * (rows != 1)} the best student, by {best[0]['name']}, keeps {share:.2g}% of "
            f"what the best sampler is above the floor: {held} the bar of {most:g}%."
        )
    return said


def by_seed(students: Sequence[Figures]) -> list[list[Figures]]:
    """Students that differ by their seeds alone, together."""
    kinds: dict[tuple[Any, ...], list[Figures]] = {}
    for one in students:
        kinds.setdefault((one["name"], one["rows"], one["steps"]), []).append(one)
    return list(kinds.values())


def middle_of(seeds: Sequence[Figures]) -> float:
    """The median distance."""
    return median([one["teacher"]["value"] for one in seeds])


def put(page: Path, text: str) -> None:
    """Write the table into a page, between its markers. Raises ValueError where these are missing."""
    whole = page.read_text(encoding="utf-8")
    if whole.count(BEGIN) != 1 or whole.count(END) != 1 or whole.index(BEGIN) > whole.index(END):
        raise ValueError(f"{page} has no place for the table: it needs the lines {BEGIN!r} and {END!r}")
    before, rest = whole.split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
