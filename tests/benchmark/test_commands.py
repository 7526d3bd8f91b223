"""What is to be typed: it names all that was measured, and runs."""

import ast
import shlex
from dataclasses import replace
from typing import Any

import pytest

from benchmark.made_up import MODEL, row
from fewstep.benchmark import Loading, Measured
from fewstep.benchmark.commands import Lines, generate_command, lines_of


def lines(source: str, one: Measured, words: bool, **loading: Any) -> Lines:
    return lines_of(replace(one, model=replace(one.model, source=source, loading=Loading(**loading))), words)


def test_a_sampler_on_a_grid_with_its_options() -> None:
    one = row("ddim", 4, options={"eta": 0.5}, precision="bfloat16")
    found = lines("models/mine", one, words=True)
    assert shlex.split(str(found.command)) == [
        "fewstep", "generate", "models/mine", "PROMPT", "--sampler", "ddim", "--steps", "4", "--grid", "quadratic",
        "--grid-option", "bias=0.5", "--option", "eta=0.5", "--guidance", "2", "--dtype", "bfloat16",
    ]  # fmt: skip
    assert found.python == (
        'images = fs.load("models/mine", dtype="bfloat16")("PROMPT", sampler="ddim", steps=4, grid="quadratic", '
        'sampling={"grid_options": {"bias": 0.5}, "options": {"eta": 0.5}}, guidance=2.0)'
    )
    assert found.diffusers == (
        'pipe.scheduler = PlanScheduler.from_config(pipe.scheduler, sampler="ddim", grid="quadratic", '
        'grid_options={"bias": 0.5}, options={"eta": 0.5}); '
        'images = pipe("PROMPT", num_inference_steps=4, guidance_scale=2).images'
    )


def test_a_negative_prompt_stands_in_all_three() -> None:
    found = lines_of(row("ddim", 4), True, negative='no "stars"')
    assert shlex.split(str(found.command))[-4:] == ["--guidance", "2", "--negative", 'no "stars"']
    assert found.python.endswith(', guidance=2.0, negative="no \\"stars\\"")')
    assert found.diffusers is not None
    assert 'pipe("PROMPT", negative_prompt="no \\"stars\\"", num_inference_steps=4' in found.diffusers


@pytest.mark.parametrize("source", ["digits", "folder/mine.safetensors"])
def test_a_plan_file_that_was_tuned_for_another_model_without_prompts(source: str) -> None:
    tuned = row("learned", 4, kind="tuned", file="out/bench/plans/p.json", guidance=None, tuned_for="0" * 16)
    found = lines(source, tuned, words=False)
    assert found.command == f"fewstep generate {source} --plan out/bench/plans/p.json --force"
    assert found.python == f'images = fs.load("{source}")(sampler=fs.Plan.load("out/bench/plans/p.json"))'
    assert found.diffusers is None


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_plan_of_this_model_needs_no_force_in_any_precision(precision: str) -> None:
    tuned = row(
        "learned", 4, kind="tuned", file="out/p.json", guidance=None, tuned_for=MODEL.digest, precision=precision
    )
    command = lines("digits", tuned, words=False).command
    end = " --dtype float16" if precision == "float16" else ""
    assert command == f"fewstep generate digits --plan out/p.json{end}"


def test_the_device_is_said_where_it_is_not_the_usual_one() -> None:
    found = lines("models/mine", row("ddim", 4), words=True, device="cuda")
    assert str(found.command).endswith(" --device cuda")
    assert found.python.startswith('images = fs.load("models/mine", device="cuda")("PROMPT"')


def test_a_plan_with_guidance_by_row_needs_the_callback() -> None:
    for options, line in (
        (
            {"guidance_factors": (1.0, 0.5)},
            'by_row = GuidanceByRow("out/p.json", 2); pipe.scheduler = PlanScheduler.from_plan(by_row.plan, '
            'pipe.scheduler); images = pipe("PROMPT", num_inference_steps=2, guidance_scale=by_row.first, '
            "callback_on_step_end=by_row).images",
        ),
        (
            {},
            'pipe.scheduler = PlanScheduler.from_plan("out/p.json", pipe.scheduler); '
            'images = pipe("PROMPT", num_inference_steps=2, guidance_scale=2).images',
        ),
    ):
        tuned = row("learned", 2, kind="tuned", file="out/p.json", tuned_for=MODEL.digest, **options)
        found = lines("models/mine", tuned, words=True)
        assert found.diffusers == line
    idle = row("learned", 2, kind="tuned", file="out/p.json", guidance=1.0, guidance_factors=(1.0, 0.5))
    assert lines("models/mine", idle, words=True).diffusers is None


def test_the_model_is_loaded_as_it_was_for_the_choice() -> None:
    one = row("ddim", 4, grid_options={}, guidance=None, precision="float16")
    found = lines("it's mine", one, words=False, variant="fp16", config="con figs", allow_pickle=True)
    assert shlex.split(str(found.command))[-7:] == [
        "--dtype", "float16", "--variant", "fp16", "--model-config", "con figs", "--allow-pickle",
    ]  # fmt: skip
    loaded = ast.parse(found.python.removeprefix("images = "), mode="eval").body.func  # type: ignore[attr-defined]
    assert ast.literal_eval(loaded.args[0]) == "it's mine"
    assert {each.arg: ast.literal_eval(each.value) for each in loaded.keywords} == {
        "dtype": "float16", "variant": "fp16", "config": "con figs", "allow_pickle": True,
    }  # fmt: skip


def test_no_digit_of_the_guidance_is_lost() -> None:
    for scale, words in ((1.23456789, "1.23456789"), (3.0, "3"), (1e-7, "1e-07")):
        one = row("ddim", 4, grid_options={}, guidance=scale)
        found = lines("models/mine", one, words=True)
        assert shlex.split(str(found.command))[-2:] == ["--guidance", words]
        assert found.diffusers is not None
        assert found.diffusers.endswith(f"guidance_scale={words}).images")
        command = generate_command(row("ddim", 4, guidance=scale), "out")
        assert shlex.split(command)[-2:] == ["--guidance", words]
