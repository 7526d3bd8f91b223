"""The best untuned sampler against the best of all schedulers of diffusers, at equal network evaluations.

    python benchmarks/untuned.py [--nfe 5,8,10,15] [--models digits:1,digits:2,mixture,flow,scenes] [--json FILE]
                                 [--objective rmse]

Error is the root mean square distance to the converged solution from the same noise. Ours is chosen among all samplers
on all grids, and on grids with parameters for the best of them, on other noise than it is reported on. Theirs is the
best on the very noise that is reported: every deterministic scheduler with every sensible setting (`peers.py`). The
bar: no more error than theirs. As a few images whose paths fork can decide these errors, the best of ours on the very
noise that is reported is there too: "alike", chosen as theirs is.
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
from peers import best_peers
from rich.console import Console
from rich.table import Table

import fewstep as fs
from fewstep.bench.problems import problem_of
from fewstep.tune import Known, Problem, search
from fewstep.tune.certificate import gain
from fewstep.tune.problem import OBJECTIVES, overall
from fewstep.tune.teacher import find_teacher
from fewstep.tune.tuning import HELD_OUT, TRAIN

FAMILIES = 8
"""Samplers whose grids' parameters are searched."""


class Case(NamedTuple):
    """A model, and how many images select ours, and judge both, in rungs."""

    problem: Problem
    ours: tuple[int, ...]
    held: tuple[int, ...]


def case(name: str) -> Case:
    if name == "mixture":
        return Case(mixture_of_digits(), (128, 512), (128, 1024))
    if name == "flow":
        return Case(mixture_of_digits(fs.schedules.flow()), (128, 512), (128, 1024))
    model, _, guidance = name.partition(":")
    problem = problem_of(fs.load(model), float(guidance) if guidance else None, None, 64, 0)
    return Case(problem, (4, 8, 16), (4, 8, 24)) if model == "scenes" else Case(problem, (8, 32, 128), (8, 32, 256))


_compiled: dict[tuple[Any, ...], list[fs.Plan]] = {}


def untuned(given: Problem, nfe: int) -> list[fs.Plan]:
    """All samplers on all grids; compiled once for all models of one noise schedule."""
    key = (given.schedule.fingerprint, nfe)
    if key not in _compiled:
        _compiled[key] = search.untuned(given.schedule, nfe)
    return _compiled[key]


def variants(given: Problem, nfe: int, families: list[str]) -> list[fs.Plan]:
    found: list[fs.Plan] = []
    for name in families:
        key = (given.schedule.fingerprint, nfe, name)
        if key not in _compiled:
            _compiled[key] = search.variants(given.schedule, nfe, [name])
        found += _compiled[key]
    return found


def named(plan: fs.Plan) -> str:
    recipe = plan.recipe
    options = ", ".join(f"{k}={v}" for k, v in recipe.grid_options.items())
    return f"{recipe.sampler} on {recipe.grid}" + (f"({options})" if options else "")


def searched(problem: Problem, nfe: int, known: Known, rungs: tuple[int, ...]) -> tuple[fs.Plan, fs.Plan, int]:
    """The best on all grids, the best with grids' parameters too, and how many were tried."""
    plans = untuned(problem, nfe)
    plain = search.halving(problem, plans, known, rungs)
    families = list(dict.fromkeys(one.plan.recipe.sampler for one in plain))[:FAMILIES]
    more = variants(problem, nfe, families)
    shaped = search.halving(problem, more, known, rungs)
    best = min([*plain, *shaped], key=lambda one: one.error).plan
    return plain[0].plan, best, len(plans) + len(more)


def measured(name: str, given: Case, nfe: int, chosen: Known, held: Known, reference: float) -> dict[str, Any]:
    problem, began = given.problem, time.perf_counter()
    by = problem.objective
    plain, best, plans = searched(problem, nfe, chosen, given.ours)
    _, alike, _ = searched(problem, nfe, held, given.held)
    errors = {plan.digest: problem.errors(plan, held) for plan in (plain, best, alike)}
    ours_seconds = time.perf_counter() - began
    theirs, tried = best_peers(problem, nfe, held, given.held, 8)
    ratio = gain(theirs[0][1], errors[best.digest], by)
    return {
        "model": name,
        "objective": by,
        "nfe": nfe,
        "ours": overall(errors[best.digest], by),
        "ours_name": named(best),
        "plain": overall(errors[plain.digest], by),
        "plain_name": named(plain),
        "alike": overall(errors[alike.digest], by),
        "alike_name": named(alike),
        "diffusers": overall(theirs[0][1], by),
        "diffusers_name": f"{theirs[0][0].setting} {theirs[0][0].steps} steps",
        "diffusers_next": [[str(peer.setting), overall(error, by)] for peer, error in theirs[1:5]],
        "times_less": ratio._asdict(),
        "plain_times_less": gain(theirs[0][1], errors[plain.digest], by)._asdict(),
        "alike_times_less": gain(theirs[0][1], errors[alike.digest], by)._asdict(),
        "met": ratio.value >= 1,
        "reference_error": reference,
        "images": len(held.numbers),
        "plans": plans,
        "settings": tried,
        "seconds": [ours_seconds, time.perf_counter() - began - ours_seconds],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nfe", default="5,8,10,15")
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
        problem, counts = one.problem, [int(n) for n in given.nfe.split(",")]
        judged = fs.compile("deis-3", schedule=problem.schedule, steps=max(counts), grid="quadratic")
        teacher = find_teacher(problem, range(TRAIN, TRAIN + 16), judged)
        chosen, held = (
            Known(numbers, problem.solve(teacher.plan, numbers))
            for numbers in (range(TRAIN, TRAIN + one.ours[-1]), range(HELD_OUT, HELD_OUT + one.held[-1]))
        )
        for nfe in counts:
            rows.append(measured(name, one, nfe, chosen, held, teacher.error))
            if given.json:
                given.json.write_text(json.dumps(rows, indent=2))
            Console(width=200, stderr=True).print(rows[-1])
    heads = [
        "model",
        "NFE",
        "ours",
        "untuned grids alone",
        "best of diffusers",
        "times less (95%)",
        "met",
        "alike",
        "times less",
    ]
    table = Table(*heads)
    for row in rows:
        less = row["times_less"]
        table.add_row(
            row["model"],
            str(row["nfe"]),
            f"{row['ours']:.5f} {row['ours_name']}",
            f"{row['plain']:.5f} {row['plain_name']}",
            f"{row['diffusers']:.5f} {row['diffusers_name']}",
            f"{less['value']:.3f} ({less['low']:.3f} to {less['high']:.3f})",
            "yes" if row["met"] else "no",
            f"{row['alike']:.5f} {row['alike_name']}",
            f"{row['alike_times_less']['value']:.3f}",
        )
    Console(width=220).print(table)


if __name__ == "__main__":
    main()
