"""Methods of guidance by name: the denoisers that they stand for, what they cost, recipes, jobs, and wrong arguments."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fewstep as fs
from fewstep.pipeline import Guidance, Item, Job, NoEffect, Pipeline, TextPipeline, draw_job, load, read
from fewstep.pipeline.imageto import _told_by_channels, encoded, noised

from .conftest import Model
from .test_img2img import SIZE, picture
from .test_inpaint import mask, nine
from .tiny import write
from .tiny_diffusers import enliven

__all__ = ["nine"]
Models = Callable[..., Model]
QUICK: dict[str, Any] = {"steps": 3, "height": 16, "width": 16}
PROMPTS, NEGATIVE = ["a red circle", "blue lion"], "green square"
OFF = {"cfg++": 0.0}


def other_unet(folder: Path, target: Path) -> Path:
    """A copy of a Stable Diffusion folder with another network."""
    shutil.copytree(folder, target)
    module = load(target).module  # type: ignore[union-attr]
    enliven(module, 5)
    module.save_pretrained(target / "unet")
    return target


@pytest.fixture(scope="module")
def weak(models: Models, tmp_path_factory: pytest.TempPathFactory) -> TextPipeline:
    return load(other_unet(models("sd").folder, tmp_path_factory.mktemp("models") / "weak"))  # type: ignore[return-value]


def base(pipe: TextPipeline) -> fs.Network:
    scale = pipe.family.time_scale
    return fs.Network(pipe._network, pipe.schedule, pipe.prediction, dtype=pipe.dtype, time_scale=scale)


def said(pipe: TextPipeline, texts: list[str]) -> dict[str, Tensor]:
    """The conditions of texts, the batch first."""
    rows = [pipe.encoder(text) for text in texts]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


APG = {"eta": 0.25, "norm_limit": 2.5, "momentum": -0.5}
BY_HAND: dict[str, tuple[str, str, float, dict[str, Any], float, Callable[..., fs.Denoiser]]] = {
    "cfg": ("sd", "unipc-3", 5.0, {}, 6, lambda net, c, n: fs.Guided(net, c, n, 5.0)),
    "apg": ("sd", "unipc-3", 5.0, APG, 6, lambda net, c, n: fs.APG(net, c, n, 5.0, **APG)),
    "cfg++": ("sd", "ddim", 0.6, {}, 6, lambda net, c, n: fs.CFGPlusPlus(net, c, n, 0.6)),
    "cfg-zero": ("sd3", "euler", 5.0, {}, 4, lambda net, c, n: fs.CFGZero(net, c, n, 5.0)),
}


@pytest.mark.parametrize("method", BY_HAND)
def test_a_method_by_name_is_its_denoiser_bit_for_bit(models: Models, method: str) -> None:
    name, sampler, scale, options, nfe, by_hand = BY_HAND[method]
    pipe = models(name).native
    images = pipe(
        PROMPTS,
        guidance=scale,
        guidance_method=method,
        guidance_options=options,
        negative=NEGATIVE,
        sampler=sampler,
        seed=[4, 9],
        **QUICK,
    )
    denoiser = by_hand(base(pipe), said(pipe, PROMPTS), said(pipe, [NEGATIVE] * 2))
    shape = pipe.latent_shape(16, 16)
    latents = fs.sample(pipe.plan(sampler, steps=3, height=16, width=16), denoiser, shape=(2, *shape), seed=[4, 9])
    assert torch.equal(images.tensor, pipe.decoder(latents))
    assert images.nfe == nfe
    plain = pipe(PROMPTS, guidance=5.0, negative=NEGATIVE, sampler=sampler, seed=[4, 9], **QUICK)
    assert torch.equal(plain.tensor, images.tensor) == (method == "cfg")


def test_perturbed_attention_is_one_more_evaluation_beside_guidance(models: Models) -> None:
    sd = models("sd").native
    options = {"scale": 2.0, "layers": "mid,up_blocks"}
    chosen: dict[str, Any] = {"guidance_method": "pag", "guidance_options": options, "seed": 4}
    images = sd("lion", guidance=5.0, negative=NEGATIVE, **chosen, **QUICK)
    made: dict[str, Any] = {"layers": ["mid", "up_blocks"], "module": sd.module}
    both = {"negative": said(sd, [NEGATIVE]), "guidance": 5.0}
    denoiser = fs.PAG(base(sd), said(sd, ["lion"]), 2.0, **both, **made)
    latents = fs.sample(sd.plan(steps=3), denoiser, shape=(1, 4, 8, 8), seed=4)
    assert torch.equal(images.tensor, sd.decoder(latents))
    alone = sd("lion", guidance=1.0, **chosen, **QUICK)
    latents = fs.sample(sd.plan(steps=3), fs.PAG(base(sd), said(sd, ["lion"]), 2.0, **made), shape=(1, 4, 8, 8), seed=4)
    assert torch.equal(alone.tensor, sd.decoder(latents))
    assert (images.nfe, alone.nfe) == (9, 6)


def test_autoguidance_counts_both_networks_and_takes_a_path(
    models: Models, weak: TextPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sd = models("sd").native
    images = sd("lion", guidance=2.5, guidance_method="autoguidance", weak=weak, seed=4, **QUICK)
    strong = base(sd).given(said(sd, ["lion"]))
    denoiser = fs.AutoGuided(strong, base(weak).given(said(weak, ["lion"])), 2.5)
    latents = fs.sample(sd.plan(steps=3), denoiser, shape=(1, 4, 8, 8), seed=4)
    assert torch.equal(images.tensor, sd.decoder(latents))
    assert images.nfe == 6
    assert images.recipe.guidance.weak == weak.digest
    path = other_unet(models("sd").folder, tmp_path / "weak")
    again = sd("lion", guidance=2.5, guidance_method="autoguidance", weak=path, seed=4, **QUICK)
    assert torch.equal(again.tensor, images.tensor)
    other = models("sd", prediction_type="v_prediction").native  # its estimate is converted
    converted = sd("lion", guidance=2.5, guidance_method="autoguidance", weak=other, seed=4, **QUICK)
    assert converted.nfe == 6
    assert not torch.allclose(converted.tensor, images.tensor, atol=1e-3)


@pytest.mark.parametrize("method", ["cfg", "apg", "cfg++", "pag", "autoguidance"])
def test_the_idle_scale_is_one_evaluation_and_one_condition_alone(
    models: Models, weak: TextPipeline, method: str
) -> None:
    sd = models("sd").native
    more: dict[str, Any] = {"pag": {"guidance_options": {"scale": 0}}, "autoguidance": {"weak": weak}}.get(method, {})
    more |= {"guidance": OFF.get(method, 1.0), "guidance_method": method, "sampler": "ddim", "seed": 3}
    images = sd("lion", **more, **({"negative": NEGATIVE} if method == "cfg++" else {}), **QUICK)
    shown = NEGATIVE if method == "cfg++" else "lion"  # at 0 it is the model under the negative condition
    assert torch.equal(images.tensor, sd(shown, guidance=1.0, sampler="ddim", seed=3, **QUICK).tensor)
    assert images.nfe == 3


def test_where_no_scale_is_given_it_is_the_usual_one_of_the_method(models: Models, weak: TextPipeline) -> None:
    sd = models("sd").native
    for method, scale, more in (("apg", 7.5, {}), ("cfg++", 0.6, {}), ("autoguidance", 2.0, {"weak": weak})):
        images = sd("lion", guidance_method=method, sampler="ddim", steps=1, height=16, width=16, **more)
        assert images.recipe.guidance.scale == scale


def test_an_interval_holds_for_every_method(models: Models, weak: TextPipeline) -> None:
    sd, few = models("sd").native, {"steps": 4, "height": 16, "width": 16, "sampler": "ddim"}
    ratios = [row.sigma / row.alpha for row in sd.plan("ddim", steps=4).rows]
    interval = (ratios[2] * 1.01, ratios[0] * 1.01)  # the first two rows
    for method, nfe in (("apg", 6), ("cfg++", 6), ("pag", 8), ("autoguidance", 6)):
        given: dict[str, Any] = {"weak": weak} if method == "autoguidance" else {}
        given |= {"guidance": 0.6} if method == "cfg++" else {"guidance": 3.0}
        assert sd("lion", guidance_method=method, interval=interval, **given, **few).nfe == nfe


@pytest.mark.parametrize(
    ("method", "more", "why"),
    [
        ("autoguidance", {}, "is guided away from the weaker model instead"),
        ("pag", {"guidance": 1.0}, "is not guided at scale 1"),
        ("apg", {"guidance": 1.0}, "is not guided at scale 1"),
    ],
)
def test_a_negative_prompt_that_a_method_has_no_use_for_is_said(
    models: Models, weak: TextPipeline, method: str, more: dict[str, Any], why: str
) -> None:
    given = {**more, **({"weak": weak} if method == "autoguidance" else {})}
    with pytest.warns(NoEffect, match=f"the negative prompt has no effect: sd {why}"):
        models("sd").native("lion", negative="blue", guidance_method=method, **given, **QUICK)


def test_a_network_that_is_told_its_scale_has_perturbed_attention_beside_it(models: Models) -> None:
    lcm, flux = models("lcm").native, models("flux").native
    images = lcm("lion", guidance=6.0, guidance_method="pag", **QUICK)
    assert images.nfe == 6
    assert not torch.allclose(images.tensor, lcm("lion", guidance=6.0, **QUICK).tensor, atol=1e-4)
    assert not torch.allclose(
        images.tensor, lcm("lion", guidance=2.0, guidance_method="pag", **QUICK).tensor, atol=1e-4
    )
    with pytest.raises(fs.InvalidInput, match="is told its guidance scale, so that apg has nothing to guide"):
        lcm("lion", guidance_method="apg", **QUICK)
    with pytest.raises(fs.InvalidInput, match=r"\(FluxTransformer2DModel\) has none; attention over text and image"):
        flux("lion", guidance_method="pag", **QUICK)


def test_pictures_in_have_the_methods_too(models: Models, weak: TextPipeline) -> None:
    sd = models("sd").native
    apg: dict[str, Any] = {"guidance": 4.0, "guidance_method": "apg", "guidance_options": APG}
    images = sd.img2img(picture(), "lion", strength=0.5, sampler="ddim", steps=6, seed=3, **apg, **SIZE)
    plan = images.recipe.plan.compile(sd.schedule)
    start = noised(plan, encoded(sd, picture(), (16, 24), "crop").latents, [3])
    denoiser = fs.APG(base(sd), said(sd, ["lion"]), said(sd, [""]), 4.0, **APG)
    assert torch.equal(images.tensor, sd.decoder(fs.sample(plan, denoiser, start=start, seed=3)))
    assert images.nfe == 6
    assert sd.inpaint(picture(), mask(), "lion", guidance_method="pag", **QUICK | SIZE).nfe == 9
    edited = sd.edit(picture(), "circle", "lion", guidance=0.6, guidance_method="cfg++", **QUICK | SIZE)
    plain = sd.edit(picture(), "circle", "lion", guidance=1.0, **QUICK | SIZE)
    assert (edited.nfe, plain.nfe) == (2 * plain.nfe, plain.nfe)
    assert not torch.allclose(edited.tensor, plain.tensor, atol=1e-4)
    found = sd.invert(picture(), "lion", guidance=0.6, guidance_method="cfg++", **QUICK | SIZE)
    assert found.psnr_latents != sd.invert(picture(), "lion", guidance=1.0, **QUICK | SIZE).psnr_latents
    auto: dict[str, Any] = {"guidance": 3.0, "guidance_method": "autoguidance", "weak": weak}
    frames = sd.interpolate(["lion", "circle"], seeds=[1, 2], frames=3, **auto, **QUICK)
    assert frames.nfe == 6
    assert torch.allclose(frames.tensor[2:], sd("circle", seed=2, **auto, **QUICK).tensor, atol=1e-5)


def test_a_network_that_was_trained_to_inpaint_is_guided_by_name(nine: Model) -> None:
    pipe = nine.native
    method: dict[str, Any] = {"guidance": 5.0, "guidance_method": "pag", "guidance_options": {"scale": 2}}
    images = pipe.inpaint(picture(), mask(), "lion", sampler="ddim", steps=2, seed=3, paste=False, **method, **SIZE)
    plan = images.recipe.plan.compile(pipe.schedule)
    chosen = torch.zeros(1, 1, 16, 24)
    chosen[..., :8] = 1
    given = _told_by_channels(pipe, plan, encoded(pipe, picture(), (16, 24), "crop"), chosen, anew=True)
    assert given.start is not None
    assert given.channels is not None
    texts, channels = [said(pipe, [text]) for text in ("lion", "")], {"channels": given.channels}
    positive, negative = ({**text, **channels} for text in texts)
    denoiser = fs.PAG(base(pipe), positive, 2.0, negative=negative, guidance=5.0, module=pipe.module)
    latents = fs.sample(plan, denoiser, start=given.start(slice(0, 1), [3]), seed=3)
    assert torch.equal(images.tensor, pipe.decoder(latents))
    assert images.nfe == 6


def test_a_picture_remembers_its_method(models: Models, weak: TextPipeline, tmp_path: Path) -> None:
    sd = models("sd").native
    images = sd("lion", guidance=4.0, guidance_method="apg", guidance_options=APG, seed=2, **QUICK)
    stamp = read(images.save(tmp_path / "apg.png"))
    assert stamp.recipe.guidance == Guidance(4.0, method="apg", options=APG)
    assert load(models("sd").folder).redraw(stamp.recipe).digest == stamp.pixels  # type: ignore[arg-type]
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


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"guidance_method": "cfgg"}, "unknown guidance method 'cfgg': did you mean 'cfg'.* known are apg, autoguidance"),
    ({"guidance_method": None}, "unknown guidance method 'None'"),
    ({"guidance_options": {"eta": 1}}, "the guidance method cfg has no options, got 'eta'"),
    ({"guidance_method": "apg", "guidance_options": {"norm": 1}}, "did you mean 'norm_limit'. known are eta, momentum"),
    ({"guidance_method": "apg", "guidance_options": {"eta": "x"}}, "option eta is a finite number, got 'x'"),
    ({"guidance_method": "apg", "guidance_options": {"momentum": 2}}, r"momentum .* must lie in \(-1, 1\)"),
    (
        {"guidance_method": "apg", "guidance_options": {"norm_limit": 0}},
        "norm_limit must be a finite number above zero",
    ),
    ({"guidance_method": "apg", "guidance_options": [1]}, "guidance_options is a mapping"),
    ({"guidance_method": "apg", "rescale": 0.5}, "rescale belongs to the guidance method cfg, got 0.5 with apg"),
    ({"guidance_method": "cfg++", "guidance": 7.5}, r"scale of CFG\+\+ must lie in \[0, 1\], got 7.5"),
    ({"guidance_method": "cfg++", "sampler": "unipc-3"}, "unipc-3 has one estimate.*use the sampler 'ddim' or 'tcd'"),
    ({"guidance_method": "cfg-zero*"}, "needs a network that predicts flow, got epsilon"),
    ({"guidance_method": "pag", "guidance_options": {"layers": "middle"}}, "no self-attention layer is named 'middle'"),
    ({"guidance_method": "autoguidance"}, "give weak=, a loaded pipeline or its path"),
    ({"guidance_method": "autoguidance", "weak": "absent"}, "unknown model 'absent'"),
    ({"guidance_method": "autoguidance", "weak": "digits"}, "weak is a Pipeline; sd is a TextPipeline"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_wrong_method_is_named_before_anything_is_encoded(
    models: Models, arguments: dict[str, Any], message: str
) -> None:
    sd = load(models("sd").folder)
    with pytest.raises(fs.InvalidInput, match=message):
        sd("lion", **{**QUICK, **arguments})  # type: ignore[arg-type]
    with pytest.raises(fs.InvalidInput, match=message):
        sd.edit(picture(), "lion", "circle", **{**QUICK, **arguments})  # type: ignore[union-attr]
    assert sd.cache.encodes == 0  # type: ignore[union-attr]


def test_a_weaker_model_of_another_task_is_refused(models: Models, nine: Model, weak: TextPipeline) -> None:
    sd = models("sd").native
    for other, message in (
        (nine.native, "further input channels 5, and sd has 0"),
        (models("lcm").native, "a distilled guidance scale True, and sd has False"),
        (models("sd").native, "weak is sd itself"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            sd("lion", guidance_method="autoguidance", weak=other, **QUICK)
    with pytest.raises(fs.InvalidInput, match="weak is the weaker model of autoguidance, and the guidance method is"):
        sd("lion", weak=weak, **QUICK)


def test_velocities_of_the_first_rows_are_refused_where_they_would_be_remembered(models: Models) -> None:
    sd3 = models("sd3").native
    with pytest.raises(fs.InvalidInput, match="unipc-3 remembers the data estimates of its first rows"):
        sd3("lion", guidance_method="cfg-zero", sampler="unipc-3", **QUICK)
    kept = {"guidance_method": "cfg-zero", "guidance_options": {"zero_init": 0}, "sampler": "unipc-3"}
    assert sd3("lion", **kept, **QUICK).nfe == 6
    with pytest.raises(fs.InvalidInput, match="SD3Transformer2DModel.* has none"):
        sd3("lion", guidance_method="pag", **QUICK)


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
        ("apg", 4.0, {"guidance_options": APG}, fs.APG(network, own, empty, 4.0, **APG)),
        ("cfg++", 0.6, {}, fs.CFGPlusPlus(network, own, empty, 0.6)),
        ("autoguidance", 3.0, {"weak": other}, fs.AutoGuided(network.given(own), labelled(other)[0].given(own), 3.0)),
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


def test_a_model_without_a_condition_is_guided_by_its_attention_or_a_weaker_one(models: Models, tmp_path: Path) -> None:
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
        ddpm.plan("ddim", steps=2), fs.AutoGuided(strong, weak, 2.0), shape=(1, *ddpm.sample_shape), seed=0
    )
    assert torch.allclose(images.tensor, expected, atol=1e-6)
    for method in ("apg", "cfg++"):
        with pytest.raises(fs.InvalidInput, match="takes no condition.*or use guidance_method"):
            ddpm(steps=2, sampler="ddim", guidance_method=method)
    dit = models("dit").native
    assert dit([3], steps=2, sampler="ddim", guidance_method="pag", guidance_options={"layers": "1"}).nfe == 6


def test_nothing_is_warned_of_where_all_acts(models: Models, weak: TextPipeline) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models("sd").native("lion", guidance_method="autoguidance", weak=weak, interval=(0.1, 20.0), **QUICK)
