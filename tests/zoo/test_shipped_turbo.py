"""The student of the scenes: what it adds to them, and what it draws in one to four evaluations."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fewstep import zoo

pytest.importorskip("diffusers")
pytest.importorskip("transformers")
import fewstep as fs
from fewstep.cli import source
from fewstep.cli.app import app
from fewstep.zoo.scenes.prompts import adherence, held_out_prompts

FOLDER = zoo.shipped_path("scenes-turbo")
COUNT = 100


@pytest.fixture(scope="module")
def pipe() -> fs.Pipeline:
    return fs.load("scenes-turbo")


def test_it_is_a_model_of_its_own_of_six_megabytes_more(pipe: fs.Pipeline) -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files if path.suffix == ".safetensors") <= 6_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors"}
    assert not [path for path in files if "_name_or_path" in path.read_bytes().decode("latin-1")]
    assert pipe.name == "scenes-turbo"
    assert pipe.model.digest != fs.load("scenes").model.digest
    assert pipe.model.teacher is not None
    assert (pipe.model.teacher.name, pipe.model.teacher.guidance) == ("scenes", 2.0)


@pytest.mark.parametrize(("rows", "least"), [(4, 0.82), (2, 0.8), (1, 0.6)])
def test_it_draws_what_unseen_prompts_say(pipe: fs.Pipeline, rows: int, least: float) -> None:
    prompts = held_out_prompts(COUNT)
    images = pipe([prompt.text for prompt in prompts], steps=rows, batch=50)
    assert images.nfe == rows
    assert adherence(list(images.pixels), prompts) >= least


def test_its_own_plan_has_four_rows_and_guidance_inside(pipe: fs.Pipeline) -> None:
    images = pipe("a red circle")
    assert (images.nfe, images.drawing.guidance.scale) == (4, 1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"negative": "blue"}, "scenes"),
        ({"guidance": 5.0}, "scenes"),
        ({"steps": 3}, "1 or 2 or 4 steps"),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_model_that_can(pipe: fs.Pipeline, asked: dict, words: str) -> None:
    with pytest.raises(fs.InvalidInput, match=words):
        pipe("a red circle", **asked)


def test_diffusers_draws_the_same_by_its_plan(pipe: fs.Pipeline) -> None:
    import torch
    from diffusers import StableDiffusionPipeline

    from fewstep.adapters.diffusers import PlanScheduler
    from fewstep.run.noise import START, unit_noise

    theirs = StableDiffusionPipeline.from_pretrained(zoo.shipped_path("scenes"), safety_checker=None)
    theirs.set_progress_bar_config(disable=True)
    theirs.unet.load_state_dict(pipe.model.module.state_dict())
    theirs.scheduler = PlanScheduler.from_plan(pipe.plan(), theirs.scheduler.config)
    ours = pipe("a red circle", seed=3)
    noise = unit_noise([3], START, torch.empty(1, *pipe.state_shape()))
    found = theirs("a red circle", latents=noise, guidance_scale=1, num_inference_steps=4, output_type="np").images
    assert abs(found[0] * 255 - ours.pixels[0]).max() < 2


@pytest.mark.parametrize(("preset", "nfe"), [("realtime", 1), ("interactive", 4)])
def test_presets_for_someone_who_waits_take_it(preset: str, nfe: int, tmp_path: Path) -> None:
    words = ["generate", "a red circle", "--preset", preset, "--json", "--output", str(tmp_path / "a.png")]
    report = json.loads(CliRunner().invoke(app, words).stdout)
    assert report["nfe"] == nfe
    assert Path(report["path"]).is_file()


def test_without_such_a_preset_the_scenes_draw_words_and_the_digits_nothing() -> None:
    assert source.default("realtime", ["a red circle"]) == "scenes-turbo"
    assert source.default("best", ["a red circle"]) == source.default(None, [], ["a red circle"]) == "scenes"
    assert source.default("realtime", []) == "digits"
