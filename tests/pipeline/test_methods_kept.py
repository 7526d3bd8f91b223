"""Methods of guidance by name: in recipes and jobs, and with models of classes or of no condition."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fewstep as fs
from fewstep.pipeline import Guidance, Item, Job, Pipeline, TextPipeline, draw_job, load, read

from .by_hand import APG
from .conftest import Model
from .test_img2img import SIZE, picture
from .tiny import write

Models = Callable[..., Model]
QUICK: dict[str, Any] = {"steps": 3, "height": 16, "width": 16}


def test_a_picture_remembers_its_method(models: Models, weak: TextPipeline, tmp_path: Path) -> None:
    sd = models("sd").native
    images = sd("lion", guidance=4.0, guidance_method="apg", guidance_options=APG, seed=2, **QUICK)
    stamp = read(images.save(tmp_path / "apg.png"))
    assert stamp.recipe.guidance == Guidance(4.0, method="apg", options=APG)
    assert load(models("sd").folder).redraw(stamp.recipe).digest == stamp.pixels
    images = sd.img2img(picture(), "lion", guidance_method="autoguidance", weak=weak, **QUICK | SIZE)
    stamp = read(images.save(tmp_path / "auto.png"))
    recipe: Any = stamp.recipe
    assert sd.redraw(recipe, image=picture(), weak=weak).digest == stamp.pixels
    with pytest.raises(fs.InvalidInput, match=f"a weaker model of digest {weak.digest}: give it as weak="):
        sd.redraw(recipe, image=picture())
    other = models("sd", prediction_type="v_prediction").native
    with pytest.raises(fs.InvalidInput, match=f"drawn with the weaker model {weak.digest}, and weak has the digest"):
        sd.redraw(recipe, image=picture(), weak=other)
    with pytest.raises(fs.InvalidInput, match="drawn with no weaker model"):
        sd.redraw(sd("lion", **QUICK).recipe, weak=weak)


def test_a_recipe_of_the_usual_method_is_as_it_was(models: Models) -> None:
    content = models("sd").native("lion", guidance=4.0, **QUICK).recipe.to_json()["guidance"]
    assert content == {"scale": 4.0, "negative": None, "interval": [0.0, None], "rescale": 0.0, "clip": False}
    assert Guidance.from_json(content) == Guidance(4.0)
    pag = Guidance(4.0, method="pag")
    assert pag.to_json()["options"] == {"scale": 3.0, "layers": ["mid"]}
    assert Guidance.from_json(json.loads(json.dumps(pag.to_json()))) == pag


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "apq"}, "unknown guidance method 'apq': did you mean 'apg'"),
        ({"method": 3}, "method is 3"),
        ({"options": {"scale": {}}}, "options is"),
        ({"options": {"layers": [3]}}, "layers is a name"),
        ({"options": {"eta": 1}}, "unknown option of the guidance method pag 'eta'"),
        ({"weak": "0" * 16}, "weak is the weaker model of autoguidance, and the guidance method is pag"),
        ({"weak": "../x"}, "weak is '../x'"),
        ({"method": "autoguidance", "options": {}}, "give weak="),
        ({"styl": 1}, r"unknown \['styl'\]"),
    ],
)
def test_a_hostile_method_is_refused_by_field(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        Guidance.from_json({**Guidance(4.0, method="pag").to_json(), **changes})


def test_a_job_keeps_its_method(models: Models, weak: TextPipeline, tmp_path: Path) -> None:
    sd = models("sd").native
    items, plan = tuple(Item("lion", seed) for seed in range(3)), sd.plan("ddim", steps=2)
    size = {"height": 16, "width": 16}

    def job(**settings: Any) -> Job:
        return Job(sd, items, plan, batch=2, settings={**size, **settings})

    method: dict[str, Any] = {"guidance_method": "autoguidance", "weak": weak}
    assert draw_job(job(**method), tmp_path / "a").nfe == 4
    lines = [json.loads(line) for line in (tmp_path / "a/manifest.jsonl").read_text().splitlines()]
    assert {(line["guidance_method"], line["guidance"], line["nfe"]) for line in lines} == {("autoguidance", 2.0, 4.0)}
    assert json.loads((tmp_path / "a/job.json").read_text())["weak"] == weak.digest
    first = (tmp_path / "a/000000-lion-seed0.png").read_bytes()
    (tmp_path / "a/000000-lion-seed0.png").unlink()
    assert draw_job(job(**method), tmp_path / "a").drawn == 2
    assert (tmp_path / "a/000000-lion-seed0.png").read_bytes() == first
    other = models("sd", prediction_type="v_prediction").native
    for settings, message in (
        ({}, 'its guidance is .*; its guidance_method is "autoguidance", yours null|its prompts and seeds'),
        ({**method, "weak": other}, f'its weak is "{weak.digest}", yours "{other.digest}"'),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            draw_job(job(**settings), tmp_path / "a")
    assert job().identity() == job(guidance_method="cfg", guidance_options={}).identity()
    assert job(guidance_method="pag").identity() != job(guidance_method="pag", guidance_options={"scale": 2}).identity()
    for settings, message in (
        ({"guidance_method": "autoguidance"}, "give weak="),
        ({"guidance_method": "cfg-zero"}, "predicts flow"),
        ({"guidance_method": "apg", "guidance_options": {"norm": 1}}, "norm_limit"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            job(**settings)
    with pytest.raises(fs.InvalidInput, match="use the sampler 'ddim'"):
        Job(sd, items, sd.plan("unipc-3", steps=2), batch=2, settings={**size, "guidance_method": "cfg++"})


def test_a_batch_size_is_found_with_rows_that_cost_nothing(models: Models, tmp_path: Path) -> None:
    sd3 = models("sd3").native
    plan = sd3.plan("euler", steps=3)
    job = Job(sd3, (Item("lion"), Item("red")), plan, settings={"guidance_method": "cfg-zero"})
    report = draw_job(job, tmp_path / "a")
    assert (report.batch, report.nfe) == (2, 4)


def labelled(pipe: Pipeline, seed: int = 0) -> tuple[fs.Network, dict[str, Tensor], dict[str, Tensor]]:
    labels = torch.tensor([0, 2])
    return fs.Network(pipe.network, pipe.schedule, pipe.prediction), {"label": labels}, {"label": labels * 0 + 3}


def test_models_of_classes_have_the_methods_too(pipe: Pipeline, tmp_path: Path) -> None:
    other = load(write(tmp_path / "other.safetensors", seed=3))
    assert isinstance(other, Pipeline)
    network, own, empty = labelled(pipe)
    few: dict[str, Any] = {"sampler": "ddim", "steps": 3, "seed": 7}
    plan = pipe.plan("ddim", steps=3)
    for method, scale, more, denoiser in (
        ("apg", 4.0, {"guidance_options": APG}, fs.Guided(network, own, empty, 4.0, method=fs.APG(**APG))),
        ("cfg++", 0.6, {}, fs.Guided(network, own, empty, 0.6, method="cfg++")),
        (
            "autoguidance",
            3.0,
            {"weak": other},
            fs.Guided(network, own, None, 3.0, method="autoguidance", weaker=labelled(other)[0].given(own)),
        ),
    ):
        images = pipe([0, 2], guidance=scale, guidance_method=method, **more, **few)
        assert torch.equal(images.tensor, fs.sample(plan, denoiser, shape=(2, 1, 4, 4), seed=7)), method
        assert images.nfe == 6
        stamp = read(images.save(tmp_path / "x.png"))
        assert pipe.redraw(stamp.recipe, weak=more.get("weak")).digest == stamp.pixels
    for given, message in (
        ({"guidance_method": "pag"}, r"this network \(UNet\) has none"),
        ({"guidance_method": "cfg-zero"}, "predicts flow"),
        ({"guidance_method": "autoguidance", "weak": other, "negative": 1}, "cannot act in autoguidance"),
        ({"guidance_method": "apg", "guidance": 1, "negative": 1}, "a negative prompt cannot act at guidance scale 1"),
        (
            {"guidance_method": "autoguidance", "weak": load(write(tmp_path / "b.safetensors", size=8))},
            "shape of states",
        ),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            pipe([0], **given, **few)


def test_a_label_guided_away_from_itself_costs_one_evaluation(pipe: Pipeline) -> None:
    few: dict[str, Any] = {"sampler": "ddim", "steps": 2}
    for method, scale in (("apg", 4.0), ("cfg++", 0.6)):
        images = pipe([1, 2], guidance=scale, guidance_method=method, negative=1, **few)
        assert images.nfe == 3  # 2 x (1 + 2) evaluations of 2 images
        assert torch.allclose(images.tensor[0], pipe([1], guidance=1.0, **few).tensor[0], atol=1e-6)


def test_a_model_without_a_condition_is_guided_by_its_attention_or_a_weaker_one(models: Models) -> None:
    ddpm = models("ddpm").native
    plain = ddpm(steps=2, sampler="ddim")
    images = ddpm(steps=2, sampler="ddim", guidance_method="pag", guidance_options={"layers": "up_blocks"})
    assert (plain.nfe, images.nfe) == (2, 4)
    assert not torch.allclose(plain.tensor, images.tensor, atol=1e-4)
    weaker = fs.load(
        lambda x, t: 0.5 * x, schedule=ddpm.schedule, prediction=ddpm.prediction, sample_shape=ddpm.sample_shape
    )
    images = ddpm(steps=2, sampler="ddim", guidance_method="autoguidance", weak=weaker)
    strong, weak = (fs.Network(each.network, each.schedule, each.prediction) for each in (ddpm, weaker))
    expected = fs.sample(
        ddpm.plan("ddim", steps=2),
        fs.Guided(strong, {}, None, 2.0, method="autoguidance", weaker=weak),
        shape=(1, *ddpm.sample_shape),
        seed=0,
    )
    assert torch.allclose(images.tensor, expected, atol=1e-6)
    for method in ("apg", "cfg++"):
        with pytest.raises(fs.InvalidInput, match=r"takes no condition.*or use guidance_method"):
            ddpm(steps=2, sampler="ddim", guidance_method=method)
    dit = models("dit").native
    assert dit([3], steps=2, sampler="ddim", guidance_method="pag", guidance_options={"layers": "1"}).nfe == 6
