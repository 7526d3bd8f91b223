"""What a text-to-image model is tuned on: captions like those of its training, and none that adherence is read from."""

import shutil
from pathlib import Path

import pytest

import fewstep as fs
from fewstep import zoo
from fewstep.benchmark.subject import Subject
from fewstep.tuning.settings import HELD_OUT
from fewstep.tuning.subject import TUNED_ON, problem_of, scale_of
from fewstep.zoo.scenes.prompts import held_out_prompts, training_prompts
from models import tiny_diffusers


def test_training_prompts_are_of_the_part_that_training_uses():
    prompts = training_prompts(TUNED_ON)
    assert not any(prompt.description.held_out for prompt in prompts)
    assert all(prompt.description.held_out for prompt in held_out_prompts(20))
    assert training_prompts(5) == prompts[:5]
    assert training_prompts(5, seed=1) != prompts[:5]


def test_scenes_are_tuned_on_training_captions_a_quarter_of_them_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, asked = fs.load("scenes"), []
    monkeypatch.setattr(type(pipe), "denoiser", lambda self, words, guidance: asked.append((words, guidance)))
    problem = problem_of(pipe, 3.0)
    assert list(problem.elsewhere) == ["prompts it learned from", "guidance 1", "guidance 4.5"]
    texts = list(dict.fromkeys(prompt.text for prompt in training_prompts(TUNED_ON)))
    held = len(texts) // 4
    problem.denoiser([HELD_OUT, 0])
    problem.elsewhere["prompts it learned from"]([HELD_OUT])
    problem.elsewhere["guidance 4.5"]([HELD_OUT])
    seen = texts[held + HELD_OUT % (len(texts) - held)]
    assert asked[0][0][1] == texts[held]
    assert asked[0][0][0] in texts[:held]
    assert asked[1] == ([seen], 3.0)
    assert asked[2] == ([asked[0][0][0]], 4.5)


def test_another_model_of_that_name_is_asked_for_prompts(tmp_path: Path) -> None:
    other = fs.load(shutil.copytree(zoo.shipped_path("scenes"), tmp_path / "scenes"))
    assert other.name == "scenes"
    with pytest.raises(fs.InvalidInput, match="scenes draws from words: give --prompts FILE"):
        problem_of(other, 3.0)
    with pytest.raises(fs.InvalidInput, match="scenes draws from words: give --prompts FILE"):
        Subject(other).conditions  # noqa: B018


def test_a_recommended_scale_of_a_negative_branch_is_refused_and_not_dropped(tmp_path: Path) -> None:
    tiny_diffusers.write("flux", tmp_path / "flux")
    assert scale_of(fs.load(tmp_path / "flux"), 2.0) == 2.0
    (tmp_path / "flux/fewstep.json").write_text('{"guidance": {"scale": 3.5, "true_cfg": 4.0}}')
    pipe = fs.load(tmp_path / "flux")
    for measured in (lambda: problem_of(pipe), lambda: Subject(pipe).scale(None)):
        with pytest.raises(fs.InvalidInput, match=r"flux recommends true_cfg, .* Take true_cfg out of a copy"):
            measured()
