"""What a solver itself costs beside the network, as ratios to diffusers measured in turn in one run.

    make bench        or        python benchmarks/solver_overhead.py [--repeats 15] [--threads 2] [--json]

Both sides are given the same stand-in network, which hands out ready tensors, so that what is timed is everything
else: conversion of the prediction, the update, the bookkeeping. Blocks of ten trajectories are run in turn, A B A B
.., and the median of the pairwise ratios is compared with the bar.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from rich.console import Console
from rich.table import Table

import fewstep as fs
from fewstep.run.eager import run_rows, starting_states

STEPS, BLOCK = 20, 10


class Case(NamedTuple):
    """One comparison: the peer's step must cost at least `bar` times ours."""

    name: str
    shape: tuple[int, ...]
    bar: float
    sampler: str
    prediction: str
    scheduler: Callable[..., Any]
    config: dict[str, Any]


def cases() -> list[Case]:
    """The comparisons with bars, each for a network that predicts noise and for one that predicts data."""
    small, large = (1, 4, 64, 64), (8, 16, 128, 128)
    found = []
    for prediction in ("epsilon", "sample"):
        config = {"prediction_type": prediction}
        dpm = (f"DPM++(2M), {prediction}", "dpmpp-2m", prediction, DPMSolverMultistepScheduler, config)
        unipc = (f"UniPC-3, {prediction}", "unipc-3", prediction, UniPCMultistepScheduler, config | {"solver_order": 3})
        found += [(*dpm, small, 8.0), (*unipc, small, 25.0), (*unipc, large, 8.0)]
    found.append(("Euler, flow", "euler", "flow", FlowMatchEulerDiscreteScheduler, {}, large, 1 / 1.1))
    return [Case(name, shape, bar, *rest) for name, *rest, shape, bar in found]


def peer_step(case: Case, start: torch.Tensor, outputs: list[torch.Tensor]) -> Callable[[], float]:
    """A function that runs the diffusers scheduler over its grid and returns the seconds of a step."""
    scheduler = case.scheduler(**case.config)

    def run() -> float:
        scheduler.set_timesteps(STEPS)
        x = start
        begin = time.perf_counter()
        for i, t in enumerate(scheduler.timesteps):
            x = scheduler.step(outputs[i % len(outputs)], t, x, return_dict=False)[0]
        return (time.perf_counter() - begin) / STEPS

    return run


def our_step(case: Case, start: torch.Tensor, outputs: list[torch.Tensor]) -> Callable[[], float]:
    """The same for our plan on the same number of steps."""
    schedule = fs.schedules.flow() if case.prediction == "flow" else fs.schedules.linear()
    plan = fs.compile(case.sampler, schedule=schedule, steps=STEPS, grid="linspace")
    calls = iter(range(10**9))
    network = fs.Network(lambda x, t: outputs[next(calls) % len(outputs)], schedule, case.prediction)

    def run() -> float:
        states, seeds = starting_states(plan, network, start=start)
        begin = time.perf_counter()
        run_rows(plan, network, states, seeds)
        return (time.perf_counter() - begin) / STEPS

    return run


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Median microseconds of a step of both, and the median ratio peer / ours over pairs of runs in turn."""
    generator = torch.Generator().manual_seed(0)
    outputs = [torch.randn(case.shape, generator=generator) for _ in range(4)]
    start = torch.randn(case.shape, generator=generator)
    peer, ours = peer_step(case, start, outputs), our_step(case, start, outputs)
    pairs = [tuple(sum(run() for _ in range(BLOCK)) / BLOCK for run in (peer, ours)) for _ in range(repeats + 2)][2:]
    ratio = statistics.median(a / b for a, b in pairs)
    return {
        "case": case.name,
        "shape": list(case.shape),
        "peer_us": 1e6 * statistics.median(a for a, _ in pairs),
        "ours_us": 1e6 * statistics.median(b for _, b in pairs),
        "ratio": ratio,
        "bar": case.bar,
        "met": ratio >= case.bar,
    }


def main() -> None:
    """Run all cases and print them; the exit status is 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    results = [measure(case, options.repeats) for case in cases()]
    if options.json:
        print(json.dumps(results, indent=1))
    else:
        table = Table(title=f"A solver step beside diffusers' ({STEPS} steps, float32, CPU, {options.threads} threads)")
        for column in ("sampler, prediction", "state", "diffusers µs", "fewstep µs", "ratio", "bar", ""):
            table.add_column(column, justify="left" if column.startswith(("sampler", "state")) else "right")
        for r in results:
            verdict = "met" if r["met"] else "missed"
            figures = (f"{r['peer_us']:.1f}", f"{r['ours_us']:.1f}", f"{r['ratio']:.1f}", f"{r['bar']:.1f}")
            table.add_row(r["case"], "x".join(map(str, r["shape"])), *figures, verdict)
        Console().print(table)
    raise SystemExit(0 if all(r["met"] for r in results) else 1)


if __name__ == "__main__":
    main()
