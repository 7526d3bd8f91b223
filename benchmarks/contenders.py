"""Which pairs of sampler and grid are the best somewhere: all that draw no noise, compared over several models.

    python benchmarks/contenders.py [--rows 4,6,8] [--models mixture,flow,cosine,vpred,digits:2,digits:1,scenes]
                                    [--count 12] [--vpred out/vpred.safetensors] [--threads 1]

The error is that of the typical image against the converged solution from the same noise. The pairs are chosen one by
one, each the one that brings the best of those chosen nearest to the best of all, by the geometric mean over models and
rows. `src/fewstep/tuning/contenders.json` is what it writes: `tune` measures these on held-out noise, whatever its own
search finds, and the best of them alone is the default for a model of which nothing is known.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from mixture import mixture_of_digits
from rich.console import Console
from rich.table import Table
from vpred import vpred

import fewstep as fs
from fewstep.core.errors import InvalidInput
from fewstep.measure.converged import Goal, find_plan
from fewstep.tuning import Problem, Solutions
from fewstep.tuning.rivals import deterministic, fitting
from fewstep.tuning.settings import TRAIN
from fewstep.tuning.subject import problem_of

OUT = Path(__file__).parent.parent / "src/fewstep/tuning/contenders.json"
Pair = tuple[str, str]
WORST = 4.0
"""Times the error of the best that a pair counts as at most, also where it cannot be compiled."""


def problem(name: str, path: Path) -> tuple[Problem, int]:
    """The problem of a name, and how many images it is measured on."""
    if name == "vpred":
        return vpred(path), 48
    if name in ("mixture", "flow", "cosine"):
        schedule = {"flow": fs.schedules.flow, "cosine": fs.schedules.cosine}.get(name)
        return mixture_of_digits(schedule() if schedule else None), 256
    model, _, guidance = name.partition(":")
    return problem_of(fs.load(model), float(guidance) if guidance else None), 12 if model == "scenes" else 48


def errors_of(own: Problem, images: int, rows: int) -> dict[Pair, float]:
    """The typical error of every pair, as many times that of the best."""
    own = replace(own, objective="psnr")
    judged = fs.compile("deis-3", schedule=own.schedule, steps=rows, grid="quadratic")
    numbers = range(TRAIN, TRAIN + images)
    teacher = find_plan(own.flow, numbers[:16], Goal(0.01, judged=judged, objective="psnr"))
    known = Solutions(numbers, own.solve(teacher.plan, numbers))
    found: dict[Pair, float] = {}
    for sampler in deterministic():
        for grid in fs.GRIDS:
            for plan in fitting(sampler, own.schedule, rows, grid=grid):
                try:
                    found[sampler, grid] = own.error(plan, known)
                except InvalidInput:
                    found[sampler, grid] = math.inf
    best = min(found.values())
    return {pair: min(error / best, WORST) for pair, error in found.items()}


def chosen(cases: list[dict[Pair, float]], count: int) -> list[tuple[Pair, float]]:
    """The pairs, each with how many times the error of the best of all the best of those up to it has, on average."""
    pairs = {pair for case in cases for pair in case}
    kept: list[tuple[Pair, float]] = []
    least = [math.log(WORST)] * len(cases)

    def with_it(pair: Pair) -> list[float]:
        return [min(now, math.log(case.get(pair, WORST))) for now, case in zip(least, cases, strict=True)]

    for _ in range(count):
        pair = min(sorted(pairs - {one for one, _ in kept}), key=lambda one: sum(with_it(one)))
        least = with_it(pair)
        kept.append((pair, math.exp(sum(least) / len(least))))
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="4,6,8")
    parser.add_argument("--models", default="mixture,flow,cosine,vpred,digits:2,digits:1,scenes")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--vpred", type=Path, default=Path("out/vpred.safetensors"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    cases, names = [], []
    for name in given.models.split(","):
        own, images = problem(name, given.vpred)
        for rows in map(int, given.rows.split(",")):
            cases.append(errors_of(own, images, rows))
            names.append(f"{name} {rows}")
            first = sorted(cases[-1].items(), key=lambda one: one[1])[:4]
            print(names[-1], *(f"{sampler} on {grid} {times:.2f};" for (sampler, grid), times in first), flush=True)
    kept = chosen(cases, given.count)
    document = {
        "command": f"python benchmarks/contenders.py --rows {given.rows} --models {given.models} --count {given.count}",
        "pairs": [pair for pair, _ in kept],
        "times_the_best": [round(times, 3) for _, times in kept],
        "alone": {
            name: {f"{s} on {g}": round(case.get((s, g), WORST), 3) for (s, g), _ in kept}
            for name, case in zip(names, cases, strict=True)
        },
    }
    given.output.write_text(json.dumps(document, indent=1) + "\n")
    table = Table("sampler", "grid", "times the error of the best, with those above")
    for (sampler, grid), times in kept:
        table.add_row(sampler, grid, f"{times:.3f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
