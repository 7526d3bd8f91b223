"""Tuned plans against the best untuned samplers, at equal and at twice the network evaluations, on held-out noise.

    python benchmarks/tune.py [--rows 4,5,6,8] [--seconds 120] [--mixture | --scenes] [--guidance S]
                              [--constant-guidance] [--interval] [--objective psnr] [--threads 2] [--processor-time]
                              [--json FILE]

The bars: at N rows the tuned plan has no more error than the best of all untuned samplers at 2 N; and within
120 seconds on two cores half the error of the best at N. The model is the shipped digits, or, with `--mixture`, the
exact denoiser of a mixture of Gaussians around 64 of the images that it was trained on, or, with `--scenes`, the
shipped text-to-image model at its own guidance. `--interval` guides some rows alone, so that there are more of them
at the cost of N guided ones; all figures are at equal evaluations of the network, 2 N an image under guidance.
`--objective` is what all errors are, as in `fewstep tune`: by default that of the typical image. `--processor-time`
counts the seconds of one core that the process had, which other work on the machine does not change.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from mixture import mixture_of_digits
from rich.console import Console
from rich.table import Table

import fewstep as fs
from fewstep.measure.distance import OBJECTIVES
from fewstep.tuning import Problem, Solutions, TuningSettings, search, tune
from fewstep.tuning.rivals import rivals_of
from fewstep.tuning.settings import HELD_OUT, TRAIN
from fewstep.tuning.subject import problem_of


def problem(kind: str, objective: str, guidance: float | None) -> Problem:
    if kind == "mixture":
        return replace(mixture_of_digits(), objective=objective)
    return replace(problem_of(fs.load(kind), guidance), objective=objective)


def best_untuned(given: Problem, rows: int, teacher: fs.Plan, tuned: fs.Plan) -> tuple[str, float, float]:
    """The best untuned sampler, chosen as the tuning does, its error, and that of `tuned` on the same images."""
    rungs, count = ((4, 8, 24), 48) if given.name == "scenes" else ((8, 32, 128), 256)
    train = Solutions(range(TRAIN, TRAIN + rungs[-1]), given.solve(teacher, range(TRAIN, TRAIN + rungs[-1])))
    held = range(HELD_OUT, HELD_OUT + count)
    held_out = Solutions(held, given.solve(teacher, held))
    found = search.halving(given, rivals_of(given.schedule, rows), train, rungs)
    errors = [(given.error(one.plan, held_out), one.plan.recipe) for one in found[:6]]
    error, recipe = min(errors, key=lambda pair: pair[0])
    return f"{recipe.sampler} on {recipe.grid}", error, given.error(tuned, held_out)


def measured(given: Problem, rows: int, settings: TuningSettings) -> dict[str, Any]:
    budget = {"nfe": 2 * rows} if settings.interval else {"rows": rows}
    plan, found = tune(given, **budget, settings=settings)
    steps = found.teacher["rows"]
    teacher = fs.compile(found.teacher["sampler"], schedule=given.schedule, steps=steps, grid=found.teacher["grid"])
    name, twice, same = best_untuned(given, 2 * rows, teacher, plan)
    own = next(row for row in found.compared if row.digest == found.plan)
    rivals = [row for row in found.compared if row.kind in ("untuned", "default")]
    equal = min(rivals, key=lambda row: row.error(given.objective).value)
    return {
        "model": given.name,
        "objective": given.objective,
        "rows": rows,
        "nfe": own.nfe,
        "factors": found.factors,
        "tuned": own.error(given.objective).value,
        "untuned": equal.error(given.objective).value,
        "untuned_name": f"{equal.sampler} on {equal.grid}",
        "gain": found.over_untuned.value,
        "gain_low": found.over_untuned.low,
        "gain_high": found.over_untuned.high,
        "images": dict(found.images),
        "elsewhere": {name: list(one) for name, one in found.elsewhere.items()},
        "untuned_at_twice": twice,
        "untuned_at_twice_name": name,
        "tuned_on_the_same_images": same,
        "of_twice": twice / same,
        "seconds": found.seconds["total"],
        "seconds_until_twice": found.seconds["twice"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="4,5,6,8")
    parser.add_argument("--seconds", type=float, default=120.0)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--mixture", dest="kind", action="store_const", const="mixture", default="digits")
    which.add_argument("--scenes", dest="kind", action="store_const", const="scenes")
    parser.add_argument("--guidance", type=float, metavar="S", help="the model's own unless given")
    parser.add_argument("--constant-guidance", action="store_true")
    parser.add_argument("--interval", action="store_true")
    parser.add_argument("--objective", choices=OBJECTIVES, default="psnr")
    parser.add_argument("--processor-time", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="a file, written anew after each line")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    settings = TuningSettings(
        seconds=given.seconds,
        factors=not given.constant_guidance,
        interval=given.interval,
        clock=time.process_time if given.processor_time else time.perf_counter,
    )
    lines: list[dict[str, Any]] = []
    for n in given.rows.split(","):
        lines.append(measured(problem(given.kind, given.objective, given.guidance), int(n), settings))
        if given.json:
            given.json.write_text(json.dumps(lines, indent=2))
    heads = ["rows", "tuned", "untuned", "times better", "untuned at twice", "of the bar", "half after", "seconds"]
    table = Table(*heads)
    for row in lines:
        half = "never" if row["seconds_until_twice"] is None else f"{row['seconds_until_twice']:.1f} s"
        table.add_row(
            str(row["rows"]),
            f"{row['tuned']:.4f}",
            f"{row['untuned']:.4f} {row['untuned_name']}",
            f"{row['gain']:.2f}",
            f"{row['untuned_at_twice']:.4f} {row['untuned_at_twice_name']}",
            f"{row['of_twice']:.2f}",
            half,
            f"{row['seconds']:.0f}",
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
