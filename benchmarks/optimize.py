"""An optimised model beside diffusers' own best practice on the same checkpoint: bfloat16, channels last, compiled.

    fewstep optimize scenes --batch 16,1 --output runs/scenes-optimized
    python benchmarks/optimize.py runs/scenes-optimized [--batches 1,16] [--repeats 20]

Both draw from the same prompts in 20 steps of DPM-Solver++(2M) under guidance 2, prompts to pixels, in turns in one
process. diffusers decodes in bfloat16 too. Then each number of images is drawn in `--repeats` pairs by the model as it
is and by the optimised one: how often is the latter faster?
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

import fewstep as fs
from fewstep import zoo
from fewstep.optimization.speed import race
from fewstep.zoo.scenes.prompts import held_out_prompts

STEPS, SCALE = 20, 2.0


def peer() -> Any:
    """The scenes in diffusers, as its pages on speed advise."""
    folder = zoo.shipped_path("scenes")
    pipe = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.bfloat16, safety_checker=None)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    pipe.set_progress_bar_config(disable=True)
    for module in (pipe.unet, pipe.vae):
        module.to(memory_format=torch.channels_last)
    pipe.unet = torch.compile(pipe.unet, dynamic=False)
    pipe.vae.decode = torch.compile(pipe.vae.decode, dynamic=False)
    return pipe


def drawing(pipe: fs.Pipeline, prompts: list[str], batch: int) -> Callable[[int], object]:
    """A batch of a pipeline, other prompts in each turn."""
    return lambda turn: pipe(part(prompts, turn, batch), steps=STEPS, guidance=SCALE, batch=batch, seed=turn)


def part(prompts: list[str], turn: int, batch: int) -> list[str]:
    return [prompts[(turn * batch + i) % len(prompts)] for i in range(batch)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the folder that `fewstep optimize` wrote of the scenes")
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--repeats", type=int, default=20)
    given = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    prompts = [prompt.text for prompt in held_out_prompts(256)]
    plain, own, theirs = fs.load("scenes"), fs.load(given.model), peer()
    for batch in map(int, given.batches.split(",")):

        def diffusers(turn: int, batch: int = batch) -> object:
            with torch.inference_mode():
                return theirs(
                    part(prompts, turn, batch), num_inference_steps=STEPS, guidance_scale=SCALE, output_type="pt"
                )

        optimised = drawing(own, prompts, batch)
        (times,) = race(diffusers, [optimised], torch.device("cpu"))
        ratio = times.ratio
        interval = f"{ratio.value:.2f} times ({ratio.low:.2f} to {ratio.high:.2f})"
        print(f"batch {batch}: {interval} faster than diffusers in bfloat16, channels last, compiled", flush=True)
        won = 0
        for _ in range(given.repeats):
            (pair,) = race(drawing(plain, prompts, batch), [optimised], torch.device("cpu"), end=0.0)
            won += pair.ratio.value > 1
        print(f"batch {batch}: faster than the model as it is in {won} of {given.repeats} measurements", flush=True)


if __name__ == "__main__":
    main()
