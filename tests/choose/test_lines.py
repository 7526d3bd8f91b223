"""What is to be typed: it names all that was measured, and runs."""

import shlex
from pathlib import Path

import pytest

from bench.rows import MACHINE, row
from fewstep.choose import lines_of
from fewstep.choose.candidate import of_run


def test_a_sampler_on_a_grid_with_its_options() -> None:
    one = of_run(row("ddim", 4, options={"eta": 0.5}, precision="bfloat16"), Path("out"), MACHINE)
    lines = lines_of("models/mine", one, words=True)
    assert shlex.split(lines.command) == [
        "fewstep", "generate", "models/mine", "PROMPT", "--sampler", "ddim", "--steps", "4", "--grid", "quadratic",
        "--grid-option", "bias=0.5", "--option", "eta=0.5", "--guidance", "2", "--dtype", "bfloat16",
    ]  # fmt: skip
    assert lines.python == (
        'images = fs.load("models/mine", dtype="bfloat16")("PROMPT", sampler="ddim", steps=4, grid="quadratic", '
        'grid_options={"bias": 0.5}, options={"eta": 0.5}, guidance=2.0)'
    )
    assert lines.diffusers == (
        'pipe.scheduler = PlanScheduler.from_config(pipe.scheduler, sampler="ddim", grid="quadratic", '
        'grid_options={"bias": 0.5}, eta=0.5); pipe(.., num_inference_steps=4, guidance_scale=2)'
    )


@pytest.mark.parametrize("source", ["digits", "folder/mine.safetensors"])
def test_a_plan_file_of_a_model_without_prompts(source: str) -> None:
    tuned = row("learned", 4, kind="tuned", plan_file="plans/p.json", guidance=None, options={"model": "0" * 16})
    lines = lines_of(source, of_run(tuned, Path("out/bench"), MACHINE), words=False)
    assert lines.command == f"fewstep generate {source} --plan out/bench/plans/p.json --force"
    assert lines.python == f'images = fs.load("{source}")(sampler=fs.Plan.load("out/bench/plans/p.json"))'
    assert lines.diffusers is None
