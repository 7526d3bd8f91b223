"""Writes the tables of docs/samplers.md from the registry: `python docs/generate_samplers.py`."""

from __future__ import annotations

from block import DOCS, filled, linked, shown, table

import fewstep as fs
from fewstep.solvers.compiler import solver_of

PAGE = DOCS / "samplers.md"
STEPS = 20


def samplers() -> str:
    """Every sampler, one a line; registers are those of a plan of 20 steps."""
    rows = []
    for name, sampler in fs.SAMPLERS.items():
        plan = fs.compile(name, schedule=fs.schedules.scaled_linear(), steps=STEPS)
        noise = "draws" if sampler.stochastic else ""
        facts = [str(sampler.order), str(sampler.evaluations), str(plan.registers), noise]
        rows.append([f"`{name}`", *facts, sampler.summary, linked(sampler.source)])
    return table(["sampler", "order", "rows a step", "registers", "noise", "what it is", "source"], rows)


def options() -> str:
    """Samplers that take the same options stand on one line."""
    groups: dict[str, list[str]] = {}
    for name in fs.SAMPLERS:
        groups.setdefault(shown(solver_of(name)[1]) or "none", []).append(f"`{name}`")
    return table(["samplers", "options and their defaults"], [[", ".join(names), o] for o, names in groups.items()])


def render() -> str:
    """The page as it has to be."""
    return filled(PAGE, {"samplers": samplers(), "options": options()})


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
