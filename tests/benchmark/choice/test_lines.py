"""What is to be typed: it names all that was measured, and runs."""

import ast
import shlex
from pathlib import Path

import pytest

from benchmark.rows import MACHINE, MODEL, row
from fewstep.benchmark.choice import lines_of
from fewstep.benchmark.choice.candidate import of_run
from fewstep.benchmark.commands import generate_command
from fewstep.benchmark.loading import Loading


def test_a_sampler_on_a_grid_with_its_options() -> None:
    one = of_run(row("ddim", 4, options={"eta": 0.5}, precision="bfloat16"), Path("out"), MACHINE)
    lines = lines_of("models/mine", one, words=True)
    assert shlex.split(str(lines.command)) == [
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
def test_a_plan_file_that_was_tuned_for_another_model_without_prompts(source: str) -> None:
    tuned = row("learned", 4, kind="tuned", plan_file="plans/p.json", guidance=None, options={"model": "0" * 16})
    lines = lines_of(source, of_run(tuned, Path("out/bench"), MACHINE), words=False)
    assert lines.command == f"fewstep generate {source} --plan out/bench/plans/p.json --force"
    assert lines.python == f'images = fs.load("{source}")(sampler=fs.Plan.load("out/bench/plans/p.json"))'
    assert lines.diffusers is None


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_plan_of_this_model_needs_no_force_in_any_precision(precision: str) -> None:
    own = {"model": MODEL.digest}
    tuned = row("learned", 4, kind="tuned", plan_file="p.json", guidance=None, options=own, precision=precision)
    command = lines_of("digits", of_run(tuned, Path("out"), MACHINE), words=False).command
    end = " --dtype float16" if precision == "float16" else ""
    assert command == f"fewstep generate digits --plan out/p.json{end}"


def test_the_device_is_said_where_it_is_not_the_usual_one() -> None:
    lines = lines_of("models/mine", of_run(row("ddim", 4), Path("out"), MACHINE), words=True, device="cuda")
    assert str(lines.command).endswith(" --device cuda")
    assert lines.python.startswith('images = fs.load("models/mine", device="cuda")("PROMPT"')


def test_a_plan_with_guidance_by_row_needs_the_callback() -> None:
    for options, line in (
        (
            {"guidance_factors": [1.0, 0.5]},
            'by_row = GuidanceByRow("out/p.json", 2); pipe.scheduler = PlanScheduler.from_plan(by_row.plan, '
            "pipe.scheduler.config); pipe(.., num_inference_steps=2, guidance_scale=by_row.first, "
            "callback_on_step_end=by_row)",
        ),
        ({}, 'pipe.scheduler = PlanScheduler.from_plan("out/p.json")'),
    ):
        tuned = row("learned", 2, kind="tuned", plan_file="p.json", options={"model": MODEL.digest, **options})
        lines = lines_of("models/mine", of_run(tuned, Path("out"), MACHINE), words=True)
        assert lines.diffusers == line
    idle = row("learned", 2, kind="tuned", plan_file="p.json", guidance=1.0, options={"guidance_factors": [1.0, 0.5]})
    assert lines_of("models/mine", of_run(idle, Path("out"), MACHINE), words=True).diffusers is None


def test_the_model_is_loaded_as_it_was_for_the_choice() -> None:
    one = of_run(row("ddim", 4, grid_options={}, guidance=None, precision="float16"), Path("out"), MACHINE)
    lines = lines_of("it's mine", one, words=False, loading=Loading("fp16", "con figs", True))
    assert shlex.split(str(lines.command))[-7:] == [
        "--dtype", "float16", "--variant", "fp16", "--model-config", "con figs", "--allow-pickle",
    ]  # fmt: skip
    loaded = ast.parse(lines.python.removeprefix("images = "), mode="eval").body.func  # type: ignore[attr-defined]
    assert ast.literal_eval(loaded.args[0]) == "it's mine"
    assert {each.arg: ast.literal_eval(each.value) for each in loaded.keywords} == {
        "dtype": "float16", "variant": "fp16", "config": "con figs", "allow_pickle": True,
    }  # fmt: skip


def test_no_digit_of_the_guidance_is_lost() -> None:
    for scale, words in ((1.23456789, "1.23456789"), (3.0, "3"), (1e-7, "1e-07")):
        one = of_run(row("ddim", 4, grid_options={}, guidance=scale), Path("out"), MACHINE)
        lines = lines_of("models/mine", one, words=True)
        assert shlex.split(str(lines.command))[-2:] == ["--guidance", words]
        assert lines.diffusers is not None
        assert lines.diffusers.endswith(f"guidance_scale={words})")
        command = generate_command(row("ddim", 4, guidance=scale), "out")
        assert shlex.split(command)[-2:] == ["--guidance", words]
