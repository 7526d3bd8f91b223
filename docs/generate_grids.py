"""Writes the tables of docs/grids.md from the list of grids: `python docs/generate_grids.py`."""

from __future__ import annotations

from block import DOCS, filled, linked, shown, table

import fewstep as fs
from fewstep.core.grid import grid_times

PAGE = DOCS / "grids.md"
STEPS = 5


def grids() -> str:
    """Every grid, one a line."""
    rows = [[f"`{name}`", g.summary, shown(g.options), linked(g.source)] for name, g in fs.GRIDS.items()]
    return table(["grid", "what it is", "options and their defaults", "source"], rows)


def times() -> str:
    """The times of five steps on two schedules."""
    schedules = (fs.schedules.scaled_linear(), fs.schedules.flow())
    rows = [
        [f"`{name}`", *(", ".join(f"{t:.4g}" for t in grid_times(name, s, STEPS)) for s in schedules)]
        for name in fs.GRIDS
    ]
    return table(["grid", "on `scaled_linear`", "on `flow`"], rows)


def render() -> str:
    """The page as it has to be."""
    return filled(PAGE, {"grids": grids(), "times": times()})


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
