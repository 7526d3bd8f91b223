"""Methods of guidance by name: the denoisers that they stand for, what they cost, and wrong arguments."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.pipeline import NoEffect, TextPipeline, load
from fewstep.pipeline.imageto import _told_by_channels, encoded, noised

from .by_hand import APG, base, other_unet, said
from .conftest import Model
from .test_img2img import SIZE, picture
from .test_inpaint import mask, nine

__all__ = ["nine"]
Models = Callable[..., Model]
QUICK: dict[str, Any] = {"steps": 3, "height": 16, "width": 16}
PROMPTS, NEGATIVE = ["a red circle", "blue lion"], "green square"
OFF = {"cfg++": 0.0}


BY_HAND: dict[str, tuple[str, str, float, dict[str, Any], float, Callable[..., fs.Denoiser]]] = {
    "cfg": ("sd", "unipc-3", 5.0, {}, 6, lambda net, c, n: fs.Guided(net, c, n, 5.0)),
    "apg": ("sd", "unipc-3", 5.0, APG, 6, lambda net, c, n: fs.Guided(net, c, n, 5.0, method=fs.APG(**APG))),
    "cfg++": ("sd", "ddim", 0.6, {}, 6, lambda net, c, n: fs.Guided(net, c, n, 0.6, method=fs.CFGPlusPlus())),
    "cfg-zero": ("sd3", "euler", 5.0, {}, 4, lambda net, c, n: fs.Guided(net, c, n, 5.0, method=fs.CFGZero())),
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
    made: dict[str, Any] = {"method": fs.PAG(2.0, ["mid", "up_blocks"]), "module": sd.module}
    denoiser = fs.Guided(base(sd), said(sd, ["lion"]), said(sd, [NEGATIVE]), 5.0, **made)
    latents = fs.sample(sd.plan(steps=3), denoiser, shape=(1, 4, 8, 8), seed=4)
    assert torch.equal(images.tensor, sd.decoder(latents))
    alone = sd("lion", guidance=1.0, **chosen, **QUICK)
    latents = fs.sample(sd.plan(steps=3), fs.Guided(base(sd), said(sd, ["lion"]), **made), shape=(1, 4, 8, 8), seed=4)
    assert torch.equal(alone.tensor, sd.decoder(latents))
    assert (images.nfe, alone.nfe) == (9, 6)


def test_autoguidance_counts_both_networks_and_takes_a_path(
    models: Models, weak: TextPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sd = models("sd").native
    images = sd("lion", guidance=2.5, guidance_method="autoguidance", weak=weak, seed=4, **QUICK)
    other = base(weak).given(said(weak, ["lion"]))
    denoiser = fs.Guided(base(sd), said(sd, ["lion"]), None, 2.5, method="autoguidance", weaker=other)
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
    alone = sd(shown, guidance=1.0, sampler="ddim", seed=3, **QUICK)
    assert images.nfe == 3
    if method == "cfg++":  # it is not folded into the plan's table, which rounds otherwise
        assert torch.allclose(images.tensor, alone.tensor, atol=1e-5)
    else:
        assert torch.equal(images.tensor, alone.tensor)


def test_where_no_scale_is_given_it_is_the_usual_one_of_the_method(models: Models, weak: TextPipeline) -> None:
    sd = models("sd").native
    for method, scale, more in (("apg", 7.5, {}), ("cfg++", 0.6, {}), ("autoguidance", 2.0, {"weak": weak})):
        images = sd("lion", guidance_method=method, sampler="ddim", steps=2, height=16, width=16, **more)
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
    denoiser = fs.Guided(base(sd), said(sd, ["lion"]), said(sd, [""]), 4.0, method=fs.APG(**APG))
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
    denoiser = fs.Guided(base(pipe), positive, negative, 5.0, method=fs.PAG(2.0), module=pipe.module)
    latents = fs.sample(plan, denoiser, start=given.start(slice(0, 1), [3]), seed=3)
    assert torch.equal(images.tensor, pipe.decoder(latents))
    assert images.nfe == 6


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
    with pytest.raises(fs.InvalidInput, match="heun remembers the data estimates of its first rows"):
        sd3("lion", guidance_method="cfg-zero", sampler="heun", **QUICK)
    kept = {"guidance_method": "cfg-zero", "guidance_options": {"zero_init": 0}, "sampler": "heun"}
    assert sd3("lion", **kept, **QUICK).nfe == 10
    with pytest.raises(fs.InvalidInput, match=r"\(SD3Transformer2DModel\) has none"):
        sd3("lion", guidance_method="pag", **QUICK)


def test_nothing_is_warned_of_where_all_acts(models: Models, weak: TextPipeline) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models("sd").native("lion", guidance_method="autoguidance", weak=weak, interval=(0.1, 20.0), **QUICK)
