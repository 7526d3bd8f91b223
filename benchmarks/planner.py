"""Whether `fewstep choose` chooses well: its choice on one noise, judged on noise that it never saw, in random budgets.

    python benchmarks/planner.py [--model digits] [--images 128] [--budgets 20] [--measure quality]
                                 [--folder DIR] [--json]

A bench of samplers x grids x steps is measured twice, with one seed to choose by and another to judge by. Each random
budget limits the rows or the milliseconds, or asks for a quality. The ratio is the error of the choice on the
held-out noise over the least error there within the same budget; for a quality, among those that cost no more than the
choice. `--measure typical` chooses and judges by the typical image in place of all of them, as `fewstep choose` does
with it. Milliseconds are those of the first bench on both sides: it is the noise that is held out, not the clock. The
bar: at most 1.05 in 20 of 20 budgets.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from fewstep.benchmark import Budget, Measured, Pictures, Sweep, bench, decide, fits

BAR = 1.05
ERRORS = {"quality": "error", "typical": "typical"}
"""Measures to choose by, and the error that a choice is judged by."""


def measured(model: str, images: int, seed: int, folder: Path, sweep: Sweep, batch: int) -> list[Measured]:
    found = bench(model, sweep, output=folder / f"seed-{seed}", pictures=Pictures(images, batch, seed))
    assert not found.left, f"{found.stopped}: {found.left} plans are left, call it again with the same --folder"
    return [one for one in found.results if not one.lost]


def random_budget(rng: Random, known: list[Measured]) -> Budget:
    """Of any of the three kinds, within what was measured."""
    kind = rng.choice(("rows", "ms", "quality"))
    if kind == "rows":
        counts = [one.plan.rows for one in known]
        return Budget(rows=rng.randint(min(counts), max(counts)))
    if kind == "ms":
        ms = [1e3 * one.seconds.value for one in known]
        return Budget(ms=math.exp(rng.uniform(math.log(min(ms)), math.log(max(ms)))))
    missed = [1 - one.figures["quality"].value for one in known]
    least, usual = min(missed), sorted(missed)[len(missed) // 2]
    return Budget(quality=1 - math.exp(rng.uniform(math.log(least), math.log(usual))))


def judged(budget: Budget, known: list[Measured], held: dict[str, Measured], measure: str) -> dict[str, Any]:
    choice = decide(known, budget, measure)
    error = ERRORS[measure]
    chosen = choice.chosen
    rows, digest = chosen.plan.rows, chosen.plan.digest
    rivals = [one for one in known if (one.plan.rows <= rows if budget.quality is not None else fits(one, budget))]
    errors = {one.plan.digest: held[one.plan.digest].figures[error].value for one in rivals}
    best = min(errors, key=lambda plan: errors[plan])
    name = next(one for one in rivals if one.plan.digest == best)
    quality = held[digest].figures["quality"]
    return {
        "budget": str(budget),
        "chosen": f"{chosen.name}, {rows}",
        "error": errors[digest],
        "best": f"{name.name}, {name.plan.rows}",
        "best_error": errors[best],
        "ratio": errors[digest] / errors[best],
        "feasible": len(rivals),
        "promised": [getattr(chosen.figures[error], end) for end in ("value", "low", "high")],
        "quality_holds": None if budget.quality is None else quality.high >= budget.quality,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", default="4,5,6,8,10,12,15,20")
    parser.add_argument("--budgets", type=int, default=20)
    parser.add_argument("--measure", choices=ERRORS, default="quality")
    parser.add_argument("--seed", type=int, default=0, help="of the random budgets")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="keeps the results, so that a run is continued")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    sweep = Sweep(steps=[int(n) for n in given.steps.split(",")])
    folder = given.folder or Path(tempfile.mkdtemp())
    first, again = (measured(given.model, given.images, seed, folder, sweep, given.batch) for seed in (0, 1))
    held = {one.plan.digest: one for one in again}
    known = [one for one in first if one.plan.digest in held and "error" in one.figures]
    rng = Random(given.seed)
    rows = [judged(random_budget(rng, known), known, held, given.measure) for _ in range(given.budgets)]
    met = sum(row["ratio"] <= BAR for row in rows)
    if given.json:
        print(json.dumps({"model": given.model, "images": given.images, "met": met, "rows": rows}, indent=2))
        return
    table = Table("budget", "chosen", "error, held out", "best there", "its error", "ratio", "quality holds")
    for row in rows:
        holds = {None: "", True: "yes", False: "no"}[row["quality_holds"]]
        table.add_row(
            row["budget"], row["chosen"], f"{row['error']:.5f}", row["best"], f"{row['best_error']:.5f}",
            f"{row['ratio']:.3f}", holds,
        )  # fmt: skip
    Console(width=200).print(table)
    print(f"within {BAR:g} in {met} of {len(rows)}; worst {max(row['ratio'] for row in rows):.3f}; {len(known)} plans")


if __name__ == "__main__":
    main()
