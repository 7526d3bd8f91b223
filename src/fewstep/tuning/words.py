"""What a certificate counts and times, in words for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

STAGES = {
    "teacher": "converged solutions, by the teacher",
    "search": "comparing samplers on grids",
    "rivals": "measuring strong untuned samplers",
    "grids": "trying variants of the best grids",
    "learning": "learning times and weights",
    "certificate": "measuring on held-out noise",
    "total": "in all",
    "twice": "until a plan had half the error of the best untuned sampler",
}
"""Of what the seconds are, in the order of the work."""
CUT = "the search was cut short, as its share of the time was over: more seconds may find a better plan"


def timed(seconds: Mapping[str, float | None]) -> Iterable[tuple[str, str]]:
    """Each stage in words, and its seconds."""
    for name in (*STAGES, *(name for name in seconds if name not in STAGES)):
        if name in seconds:
            value = seconds[name]
            yield STAGES.get(name, name), "never" if value is None else f"{value:.1f} s"


def searched(search: Mapping[str, Any]) -> str:
    """What the search tried, and whether it came to its end."""
    said = [f"{search['untuned']} pairs of an untuned sampler and a grid were compared"]
    if "variants" in search:
        said.append(f"{search['variants']} variants of the best grids were tried")
    if search.get("layouts"):
        said.append(f"{search['layouts']} ways to choose the rows that are guided (layouts) were fitted")
    if "cut" in search:
        said.append(CUT if search["cut"] else "the search came to its end")
    known = ("untuned", "variants", "layouts", "cut")
    said += [f"{name} {value}" for name, value in search.items() if name not in known]
    return "; ".join(said)


def used(images: Mapping[str, int]) -> str:
    """How many images were for what."""
    what = {"train": "to learn from", "validation": "to choose by", "held_out": "held out, to compare on"}
    return ", ".join(f"{images[name]} {words}" for name, words in what.items() if name in images)


def learned(learning: Mapping[str, Any]) -> str:
    """How long was learned, and when the best came."""
    most = f" of at most {learning['at_most']}" if "at_most" in learning else ""
    best = f", the best after {learning['best']}" if "best" in learning else ""
    return f"{learning['iterations']} iterations{most}{best}"
