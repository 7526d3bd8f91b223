"""Time from prompts to pixels against diffusers: the same checkpoint, one after the other in one run, as ratios.

    make bench        or        python benchmarks/image_time.py [--model FOLDER] [--repeats 15] [--threads 2] [--json]

Every repeat has prompts of its own, so that no cached embedding helps. With the same sampler and steps fewstep must
never be slower; its recommended sampler in 8 steps must be twice as fast as the default of diffusers,
50 steps of the checkpoint's own scheduler (at equal adherence, which `benchmarks/scenes.py` measures).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionPipeline, UniPCMultistepScheduler
from rich.console import Console
from rich.table import Table

import fewstep as fs
from fewstep import zoo
from fewstep.zoo.scenes.prompts import held_out_prompts

GUIDANCE = 5.0


class Case(NamedTuple):
    """One comparison: diffusers takes at least `bar` times as long as fewstep."""

    name: str
    images: int
    bar: float
    scheduler: type | None
    config: dict[str, Any]
    peer_steps: int
    ours: dict[str, Any]


def cases() -> list[Case]:
    """The comparisons with bars; a scheduler of None is the checkpoint's own."""
    found: list[Case] = []
    for images in (1, 4):
        same = [
            ("DDIM, 20 steps", DDIMScheduler, {}, {"sampler": "ddim"}),
            ("DPM++(2M), 20 steps", DPMSolverMultistepScheduler, {}, {"sampler": "dpmpp-2m"}),
            ("UniPC-3, 20 steps", UniPCMultistepScheduler, {"solver_order": 3}, {"sampler": "unipc-3"}),
        ]
        found += [Case(name, images, 1.0, kind, config, 20, {**ours, "steps": 20}) for name, kind, config, ours in same]
        found.append(
            Case(
                "recommended, 8 steps; default, 50 steps",
                images,
                2.0,
                None,
                {},
                50,
                {"sampler": "unipc-2", "steps": 8, "guidance": None},
            )
        )
    return found


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measured(case: Case, peer: Any, pipe: fs.Pipeline, texts: list[str], repeats: int) -> dict[str, Any]:
    """Seconds of both sides and the median of the pairwise ratios."""
    own = peer.scheduler
    if case.scheduler is not None:
        peer.scheduler = case.scheduler.from_config(own.config, **case.config)
    theirs, ours = [], []
    for i in range(repeats + 1):
        prompts = texts[i * case.images : (i + 1) * case.images]

        def diffusers(prompts: list[str] = prompts) -> Any:
            return peer(prompts, num_inference_steps=case.peer_steps, guidance_scale=GUIDANCE, output_type="np").images

        def fewstep(prompts: list[str] = prompts) -> Any:
            return pipe(prompts, **{"guidance": GUIDANCE} | case.ours | {"batch": case.images}).pixels

        sides = [(theirs, diffusers), (ours, fewstep)]
        for seconds, work in sides if i % 2 else sides[::-1]:
            seconds.append(timed(work))
    peer.scheduler = own
    ratios = [a / b for a, b in zip(theirs[1:], ours[1:], strict=True)]  # the first repeat warms both up
    return {
        "case": case.name,
        "images": case.images,
        "diffusers": statistics.median(theirs[1:]),
        "fewstep": statistics.median(ours[1:]),
        "ratio": statistics.median(ratios),
        "bar": case.bar,
    }


def main() -> None:
    """Time every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(zoo.shipped_path("scenes")))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    peer: Any = StableDiffusionPipeline.from_pretrained(given.model, low_cpu_mem_usage=False)
    peer.set_progress_bar_config(disable=True)
    pipe = fs.load(given.model)
    todo = cases()
    texts = [prompt.text for prompt in held_out_prompts((given.repeats + 1) * sum(case.images for case in todo))]
    rows = []
    for case in todo:
        mine, texts = texts[: (given.repeats + 1) * case.images], texts[(given.repeats + 1) * case.images :]
        rows.append(measured(case, peer, pipe, mine, given.repeats))
    if given.json:
        print(json.dumps(rows, indent=2))
        return
    table = Table("case", "images", "diffusers, s", "fewstep, s", "ratio", "bar")
    for row in rows:
        met = "met" if row["ratio"] >= row["bar"] else "MISSED"
        seconds = (f"{row['diffusers']:.3f}", f"{row['fewstep']:.3f}")
        table.add_row(row["case"], str(row["images"]), *seconds, f"{row['ratio']:.2f}", f"{row['bar']:g} {met}")
    Console().print(table)


if __name__ == "__main__":
    main()
