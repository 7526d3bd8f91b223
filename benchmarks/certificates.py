"""Whether certificates keep what they say, on noise that no tuning saw.

    python benchmarks/certificates.py [--models digits:1,digits:2,scenes,mixture,flow,vpred] [--seconds 60,170]
                                      [--rows 6] [--images 512] [--vpred out/vpred.safetensors] [--json FILE]

Each model is tuned within each budget of seconds of processor time of one thread. Then all untuned samplers on all
grids are searched by halving on fresh noise, and the best `LAST` of them are drawn with all fresh images, with the
rival that the certificate names and the tuned plan; of exact denoisers these are eight times `--images`. The bars:
that rival has at most 5% more error than the best of all; the true gain over the best of all lies within the interval;
the ends of the interval differ by at most 1.4 times; at most one in six certificates claims nothing about the best. All
errors are those of the typical image.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mixture import mixture_of_digits
from rich.console import Console
from rich.table import Table
from vpred import vpred

import fewstep as fs
from fewstep.measure.converged import Goal, find_plan
from fewstep.measure.distance import overall
from fewstep.tuning import Certificate, Problem, Solutions, TuningSettings, search, tune
from fewstep.tuning.rivals import rivals_of
from fewstep.tuning.subject import problem_of
from fewstep.tuning.verdict import named

FRESH = 7 * 2**27
"""The numbers of the fresh images begin here: no part of a tuning has them."""
LAST = 16
FINE = 0.01
"""The converged solution moved by this share of the usual sampler's error at most, and is then drawn in twice the
steps: a tuned plan may have a tenth of that error, and what the solution is off would be counted as the plan's own.
"""
EXACT, MORE = ("mixture", "flow"), 8
"""Denoisers that are formulas, of which so many times the images are judged: the gain on 512 images of a mixture varies
by 6% from one draw of noise to another, as much as an interval of 1,024 is wide.
"""
WITHIN, WIDEST = 1.05, 1.4


class Judged(NamedTuple):
    """A model with the fresh images, and the untuned plans, the best on the last rung of a search first."""

    problem: Problem
    images: Solutions
    untuned: list[fs.Plan]


def problem(name: str, path: Path) -> Problem:
    if name == "vpred":
        return vpred(path)
    if name in ("mixture", "flow"):
        return mixture_of_digits(fs.schedules.flow() if name == "flow" else None)
    model, _, guidance = name.partition(":")
    return problem_of(fs.load(model), float(guidance) if guidance else None)


def judged(own: Problem, rows: int, count: int) -> Judged:
    numbers = range(FRESH, FRESH + count)
    usual = fs.compile("deis-3", schedule=own.schedule, steps=rows, grid="quadratic")
    teacher = find_plan(own.flow, numbers[:16], Goal(FINE, judged=usual, objective=own.objective)).plan
    recipe = teacher.recipe
    finer = fs.compile(recipe.sampler, schedule=own.schedule, steps=2 * recipe.steps, grid=recipe.grid)
    images = Solutions(numbers, own.solve(finer, numbers))
    scored = search.halving(own, rivals_of(own.schedule, rows), images, (count // 16, count // 4))
    return Judged(own, images, [one.plan for one in scored[:LAST]])


def kept(found: Certificate, plan: fs.Plan, fresh: Judged) -> dict[str, Any]:
    """What the certificate says, and what is so on the fresh images."""
    rivals = rivals_of(fresh.problem.schedule, found.rows)
    own = [p for p in (fresh.problem.untuned(found.rows), *rivals) if named(p) == found.rival][:1]
    errors = {named(p): fresh.problem.error(p, fresh.images) for p in (*fresh.untuned, *own)}
    best = min(errors, key=errors.__getitem__)
    true = errors[best] / overall(fresh.problem.errors(plan, fresh.images), fresh.problem.objective)
    said = found.over_untuned
    return {
        "said": list(said),
        "rival": found.rival,
        "rivals": found.rivals["measured"],
        "abstains": bool(found.rivals["missing"]),
        "best": best,
        "rival_of_best": errors[found.rival] / errors[best],
        "true": true,
        "inside": said.low <= true <= said.high,
        "width": said.high / said.low,
        "judged_on": len(fresh.images.numbers),
        "held_out": found.images["held_out"],
        "seconds": found.seconds["total"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="digits:1,digits:2,scenes,mixture,flow,vpred")
    parser.add_argument("--seconds", default="60,170")
    parser.add_argument("--rows", type=int, default=6)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--vpred", type=Path, default=Path("out/vpred.safetensors"))
    parser.add_argument("--json", type=Path, help="a file, written anew after each line")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[dict[str, Any]] = []
    for name in given.models.split(","):
        own = replace(problem(name, given.vpred), objective="psnr")
        fresh = judged(own, given.rows, given.images * (MORE if name in EXACT else 1))
        for seconds in map(float, given.seconds.split(",")):
            settings = TuningSettings(seconds=seconds, clock=time.process_time)
            plan, found = tune(own, rows=given.rows, settings=settings)
            lines.append({"model": name, "budget": seconds, **kept(found, plan, fresh)})
            print(json.dumps(lines[-1]), flush=True)
            if given.json:
                given.json.write_text(json.dumps(lines, indent=1))
    table = Table("model", "seconds", "said", "true", "inside", "rival / best", "width", "rivals")
    for one in lines:
        value, low, high = one["said"]
        table.add_row(
            one["model"],
            f"{one['budget']:g}",
            f"{value:.2f} ({low:.2f} to {high:.2f})",
            f"{one['true']:.2f}",
            "yes" if one["inside"] else "no",
            f"{one['rival_of_best']:.3f}",
            f"{one['width']:.2f}",
            f"{one['rivals']}{', abstains' if one['abstains'] else ''}",
        )
    Console(width=140).print(table)
    within = sum(one["rival_of_best"] <= WITHIN for one in lines)
    inside, wide = sum(one["inside"] for one in lines), sum(one["width"] > WIDEST for one in lines)
    print(
        f"of {len(lines)}: rival within 5% of the best {within}, gain inside {inside}, wider than {WIDEST} {wide}, "
        f"abstain {sum(one['abstains'] for one in lines)}"
    )


if __name__ == "__main__":
    main()
