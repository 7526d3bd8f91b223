"""Tuned plans against the best untuned samplers, at equal and at twice the network evaluations, on held-out noise.

    python benchmarks/tune.py [--nfe 4,5,6,8] [--seconds 120] [--mixture] [--threads 2] [--json]

The bars: at N evaluations the tuned plan has no more error than the best of all untuned samplers at 2 N; and within 120
seconds on two cores half the error of the best at N. The model is the shipped digits, or, with `--mixture`, the exact
denoiser of a mixture of Gaussians around 64 of the images that it was trained on.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from mixture import mixture_of_digits
from rich.console import Console
from rich.table import Table

import fewstep as fs
from fewstep.bench.problems import problem_of
from fewstep.tune import Known, Problem, search, tune
from fewstep.tune.problem import rmse
from fewstep.tune.tuning import HELD_OUT, TRAIN


def problem(mixture: bool) -> Problem:
    return mixture_of_digits() if mixture else problem_of(fs.load("digits"), None, None, 64, 0)


def best_untuned(given: Problem, nfe: int, teacher: fs.Plan) -> tuple[str, float]:
    """The best untuned sampler, chosen and measured as the tuning does, and the least error of the finalists."""
    rungs, count = (8, 32, 128), 256
    train = Known(range(TRAIN, TRAIN + 128), given.solve(teacher, range(TRAIN, TRAIN + 128)))
    held = range(HELD_OUT, HELD_OUT + count)
    held_out = Known(held, given.solve(teacher, held))
    found = search.halving(given, search.untuned(given.schedule, nfe), train, rungs)
    errors = [(rmse(given.errors(one.plan, held_out)), one.plan.recipe) for one in found[:6]]
    error, recipe = min(errors, key=lambda pair: pair[0])
    return f"{recipe.sampler} on {recipe.grid}", error


def measured(given: Problem, nfe: int, seconds: float) -> dict[str, Any]:
    found = tune(given, nfe, seconds=seconds).certificate
    steps = found.teacher["nfe"]
    teacher = fs.compile(found.teacher["sampler"], schedule=given.schedule, steps=steps, grid=found.teacher["grid"])
    name, twice = best_untuned(given, 2 * nfe, teacher)
    own = next(row for row in found.compared if row.digest == found.plan)
    equal = min((row for row in found.compared if row.kind in ("untuned", "default")), key=lambda row: row.rmse.value)
    return {
        "nfe": nfe,
        "tuned": own.rmse.value,
        "untuned": equal.rmse.value,
        "untuned_name": f"{equal.sampler} on {equal.grid}",
        "gain": found.over_untuned.value,
        "gain_low": found.over_untuned.low,
        "untuned_at_twice": twice,
        "untuned_at_twice_name": name,
        "of_twice": twice / own.rmse.value,
        "seconds": found.seconds["total"],
        "seconds_until_twice": found.seconds["twice"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nfe", default="4,5,6,8")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--mixture", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = [measured(problem(given.mixture), int(n), given.seconds) for n in given.nfe.split(",")]
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    heads = ["NFE", "tuned", "untuned", "times better", "untuned at 2 NFE", "of the bar", "half after", "seconds"]
    table = Table(*heads)
    for row in rows:
        half = "never" if row["seconds_until_twice"] is None else f"{row['seconds_until_twice']:.1f} s"
        table.add_row(
            str(row["nfe"]),
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
