"""The best untuned sampler against the best of all schedulers of diffusers, at equal rows.

    python benchmarks/untuned.py [--rows 5,8,10,15] [--models digits:1,digits:2,mixture,flow,scenes] [--json FILE]
                                 [--objective rmse]

Error is the root mean square distance to the converged solution from the same noise, or with `--objective psnr` that
of the typical image. Ours are all samplers on all grids, and on grids with parameters for the best of them; theirs are
all deterministic schedulers with every sensible setting (`peers.py`). Both are searched by halving on the same noise,
and the best `FINALISTS` of each are drawn with noise that no search saw. The bar: ours, chosen by the search, has no
more error there than the best of theirs has there. As that gives theirs a choice that ours has not, two fair
comparisons are beside it: both chosen by the search, and both chosen where they are reported.
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
from peers import best_peers, peer_errors
from rich.console import Console
from rich.table import Table
from torch import Tensor

import fewstep as fs
from fewstep.measure.converged import Goal, find_plan
from fewstep.measure.distance import OBJECTIVES, overall
from fewstep.tuning import Problem, Solutions, search
from fewstep.tuning.certificate import gain
from fewstep.tuning.rivals import rivals_of
from fewstep.tuning.settings import HELD_OUT, TRAIN
from fewstep.tuning.subject import problem_of
from fewstep.tuning.teacher import SHARE

FAMILIES = 8
"""Samplers whose grids' parameters are searched."""
FINALISTS = 6
"""The best of each side's search, which are drawn with the noise that is reported."""


class Case(NamedTuple):
    """A model, the images that plans are searched with, in rungs, and how many others judge."""

    problem: Problem
    rungs: tuple[int, ...]
    held: int


def case(name: str) -> Case:
    if name == "mixture":
        return Case(mixture_of_digits(), (128, 512, 2048), 8192)
    if name == "flow":
        return Case(mixture_of_digits(fs.schedules.flow()), (128, 512, 2048), 8192)
    model, _, guidance = name.partition(":")
    problem = problem_of(fs.load(model), float(guidance) if guidance else None)
    return Case(problem, (4, 16, 64), 384) if model == "scenes" else Case(problem, (8, 32, 128), 512)


_compiled: dict[tuple[Any, ...], list[fs.Plan]] = {}


def untuned(given: Problem, count: int) -> list[fs.Plan]:
    """All samplers on all grids; compiled once for all models of one noise schedule."""
    key = (given.schedule.fingerprint, count)
    if key not in _compiled:
        _compiled[key] = rivals_of(given.schedule, count)
    return _compiled[key]


def variants(given: Problem, count: int, families: list[str]) -> list[fs.Plan]:
    found: list[fs.Plan] = []
    for name in families:
        key = (given.schedule.fingerprint, count, name)
        if key not in _compiled:
            _compiled[key] = search.variants(given.schedule, count, [name])
        found += _compiled[key]
    return found


def named(plan: fs.Plan) -> str:
    recipe = plan.recipe
    options = ", ".join(f"{k}={v}" for k, v in recipe.grid_options.items())
    if recipe.grid == "times":
        options = " ".join(f"{t:.4g}" for t in recipe.times)
    return f"{recipe.sampler} on {recipe.grid}" + (f"({options})" if options else "")


class Judged(NamedTuple):
    """A finalist and its errors (B,) on the held-out images."""

    name: str
    errors: Tensor


def ours(
    problem: Problem, count: int, known: Solutions, held: Solutions, rungs: tuple[int, ...]
) -> tuple[list[Judged], int]:
    """Our finalists as the search ranks them, and how many plans were tried."""
    plans = untuned(problem, count)
    plain = search.halving(problem, plans, known, rungs)
    families = list(dict.fromkeys(one.plan.recipe.sampler for one in plain))[:FAMILIES]
    more = variants(problem, count, families)
    shaped = search.halving(problem, more, known, rungs)
    best = sorted([*plain, *shaped], key=lambda one: one.error)[:FINALISTS]
    return [Judged(named(one.plan), problem.errors(one.plan, held)) for one in best], len(plans) + len(more)


def theirs(
    problem: Problem, count: int, known: Solutions, held: Solutions, rungs: tuple[int, ...]
) -> tuple[list[Judged], int]:
    """The same of the schedulers of diffusers."""
    best, tried = best_peers(problem, count, known, rungs, search.KEPT)
    finalists = [peer for peer, _ in best[:FINALISTS]]
    return [Judged(f"{peer.setting} {peer.steps} steps", peer_errors(problem, peer, held)) for peer in finalists], tried


def measured(name: str, given: Case, count: int, known: Solutions, held: Solutions, reference: float) -> dict[str, Any]:
    problem, began, by = given.problem, time.perf_counter(), given.problem.objective
    mine, plans = ours(problem, count, known, held, given.rungs)
    between = time.perf_counter()
    peers, settings = theirs(problem, count, known, held, given.rungs)
    chosen, peer = mine[0], peers[0]
    best, best_peer = (min(found, key=lambda one: overall(one.errors, by)) for found in (mine, peers))
    ratios = {
        "times_less": gain(best_peer.errors, chosen.errors, by),
        "both_by_search": gain(peer.errors, chosen.errors, by),
        "both_where_reported": gain(best_peer.errors, best.errors, by),
    }
    return {
        "model": name,
        "objective": by,
        "rows": count,
        "ours": {one.name: overall(one.errors, by) for one in mine},
        "diffusers": {one.name: overall(one.errors, by) for one in peers},
        "chosen": [chosen.name, overall(chosen.errors, by)],
        "best": [best.name, overall(best.errors, by)],
        "best_of_diffusers": [best_peer.name, overall(best_peer.errors, by)],
        **{name: ratio._asdict() for name, ratio in ratios.items()},
        "met": ratios["times_less"].value >= 1,
        "reference_error": reference,
        "images": [len(known.numbers), len(held.numbers)],
        "plans": plans,
        "settings": settings,
        "seconds": [between - began, time.perf_counter() - between],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="5,8,10,15")
    parser.add_argument("--models", default="digits:1,digits:2,mixture,flow,scenes")
    parser.add_argument("--objective", choices=OBJECTIVES, default="rmse", help="what all errors are")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="a file, written anew after each line")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows: list[dict[str, Any]] = []
    for name in given.models.split(","):
        one = case(name)
        one = one._replace(problem=replace(one.problem, objective=given.objective))
        problem, counts = one.problem, [int(n) for n in given.rows.split(",")]
        judged = fs.compile("deis-3", schedule=problem.schedule, steps=max(counts), grid="quadratic")
        teacher = find_plan(
            problem.flow, range(TRAIN, TRAIN + 16), Goal(SHARE, judged=judged, objective=problem.objective)
        )
        known, held = (
            Solutions(numbers, problem.solve(teacher.plan, numbers))
            for numbers in (range(TRAIN, TRAIN + one.rungs[-1]), range(HELD_OUT, HELD_OUT + one.held))
        )
        for count in counts:
            rows.append(measured(name, one, count, known, held, teacher.error))
            if given.json:
                given.json.write_text(json.dumps(rows, indent=2))
            Console(width=200, stderr=True).print(rows[-1])
    fair = ("times_less", "both_by_search", "both_where_reported")
    table = Table("model", "rows", "ours", "best of diffusers", "times less (95%)", "met", *fair[1:])
    for row in rows:
        (own, error), (peer, least) = row["chosen"], row["best_of_diffusers"]
        less = [f"{row[name]['value']:.3f} ({row[name]['low']:.3f} to {row[name]['high']:.3f})" for name in fair]
        table.add_row(
            row["model"],
            str(row["rows"]),
            f"{error:.5f} {own}",
            f"{least:.5f} {peer}",
            less[0],
            "yes" if row["met"] else "no",
            *less[1:],
        )
    Console(width=220).print(table)


if __name__ == "__main__":
    main()
