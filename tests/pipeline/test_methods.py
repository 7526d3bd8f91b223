"""Methods of guidance by name: the denoisers that they stand for, what they cost, and wrong arguments."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.models import NoEffect
from fewstep.pipeline import Pipeline, load
from fewstep.pipeline.img2img import encoded
from fewstep.pipeline.inpaint import origin
from fewstep.pipeline.order import Order, Origin, Run
from fewstep.pipeline.stages import start
from fewstep.pipeline.strength import Strength
from models.by_hand import APG, base, other_unet, said
from models.tiny_diffusers import Twins

from .test_img2img import SIZE, picture
from .test_inpaint import mask, nine

__all__ = ["nine"]
Models = Callable[..., Twins]
QUICK: dict[str, Any] = {"steps": 3, "height": 16, "width": 16}
PROMPTS, NEGATIVE = ["a red circle", "blue lion"], "green square"
OFF = {"cfg++": 0.0}


BY_HAND: dict[str, tuple[str, str, float, dict[str, Any], float, Callable[..., fs.Denoiser]]] = {
    "cfg": ("sd", "unipc-3", 5.0, {}, 6, lambda net, c, n: fs.Guided(net, c, n, 5.0)),
    "apg": ("sd", "unipc-3", 5.0, APG, 6, lambda net, c, n: fs.Guided(net, c, n, 5.0, method=fs.APG(**APG))),
    "cfg++": ("sd", "ddim", 0.6, {}, 6, lambda net, c, n: fs.Guided(net, c, n, 0.6, method="cfg++")),
    "cfg-zero": ("sd3", "euler", 5.0, {}, 4, lambda net, c, n: fs.Guided(net, c, n, 5.0, method="cfg-zero")),
}


@pytest.mark.parametrize("method", BY_HAND)
def test_a_method_by_name_is_its_denoiser_bit_for_bit(models: Models, method: str) -> None:
    name, sampler, scale, options, nfe, by_hand = BY_HAND[method]
    pipe = models(name).native
    images = pipe(
        PROMPTS,
        guidance=fs.Guidance(scale, method=method, **options),
        negative=NEGATIVE,
        sampler=sampler,
        seed=[4, 9],
        **QUICK,
    )
    denoiser = by_hand(base(pipe), said(pipe, PROMPTS), said(pipe, [NEGATIVE] * 2))
    shape = pipe.state_shape(16, 16)
    latents = fs.sample(pipe.plan(sampler, steps=3, height=16, width=16), denoiser, shape=(2, *shape), seed=[4, 9])
    assert torch.equal(images.tensor, pipe.decode(latents))
    assert images.nfe == nfe
    plain = pipe(PROMPTS, guidance=5.0, negative=NEGATIVE, sampler=sampler, seed=[4, 9], **QUICK)
    assert torch.equal(plain.tensor, images.tensor) == (method == "cfg")


def test_perturbed_attention_is_one_more_evaluation_beside_guidance(models: Models) -> None:
    sd = models("sd").native
    options = {"scale": 2.0, "layers": "mid,up_blocks"}
    guidance = fs.Guidance(5.0, method="pag", options=options)
    images = sd("lion", guidance=guidance, negative=NEGATIVE, seed=4, **QUICK)
    made: dict[str, Any] = {"method": fs.PAG(2.0, ["mid", "up_blocks"])}
    denoiser = fs.Guided(base(sd), said(sd, ["lion"]), said(sd, [NEGATIVE]), 5.0, **made)
    latents = fs.sample(sd.plan(steps=3), denoiser, shape=(1, 4, 8, 8), seed=4)
    assert torch.equal(images.tensor, sd.decode(latents))
    alone = sd("lion", guidance=guidance.but(scale=1.0), seed=4, **QUICK)
    latents = fs.sample(sd.plan(steps=3), fs.Guided(base(sd), said(sd, ["lion"]), **made), shape=(1, 4, 8, 8), seed=4)
    assert torch.equal(alone.tensor, sd.decode(latents))
    assert (images.nfe, alone.nfe) == (9, 6)


def test_autoguidance_counts_both_networks_and_takes_a_path(
    models: Models, weak: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sd = models("sd").native
    auto = {"scale": 2.5, "method": "autoguidance"}
    images = sd("lion", guidance=auto, weak=weak, seed=4, **QUICK)
    weaker = base(weak).given(said(weak, ["lion"]))
    denoiser = fs.Guided(base(sd), said(sd, ["lion"]), scale=2.5, method="autoguidance", weaker=weaker)
    latents = fs.sample(sd.plan(steps=3), denoiser, shape=(1, 4, 8, 8), seed=4)
    assert torch.equal(images.tensor, sd.decode(latents))
    assert images.nfe == 6
    assert images.drawing.guidance.weaker == weak.model.digest
    path = other_unet(models("sd").folder, tmp_path / "weak")
    again = sd("lion", guidance=auto, weak=path, seed=4, **QUICK)
    assert torch.equal(again.tensor, images.tensor)
    other = models("sd", prediction_type="v_prediction").native  # its estimate is converted
    converted = sd("lion", guidance=auto, weak=other, seed=4, **QUICK)
    assert converted.nfe == 6
    assert not torch.allclose(converted.tensor, images.tensor, atol=1e-3)


@pytest.mark.parametrize("method", ["cfg", "apg", "cfg++", "pag", "autoguidance"])
def test_the_idle_scale_is_one_evaluation_and_one_condition_alone(models: Models, weak: Pipeline, method: str) -> None:
    sd = models("sd").native
    guidance: dict[str, Any] = {"scale": OFF.get(method, 1.0), "method": method}
    guidance |= {"options": {"scale": 0}} if method == "pag" else {}
    more: dict[str, Any] = {"weak": weak} if method == "autoguidance" else {}
    images = sd(
        "lion",
        guidance=guidance,
        sampler="ddim",
        seed=3,
        **more,
        **({"negative": NEGATIVE} if method == "cfg++" else {}),
        **QUICK,
    )
    shown = NEGATIVE if method == "cfg++" else "lion"  # at 0 it is the model under the negative condition
    alone = sd(shown, guidance=1.0, sampler="ddim", seed=3, **QUICK)
    assert images.nfe == 3
    if method == "cfg++":  # it is not folded into the plan's table, which rounds otherwise
        assert torch.allclose(images.tensor, alone.tensor, atol=1e-5)
    else:
        assert torch.equal(images.tensor, alone.tensor)


def test_where_no_scale_is_given_it_is_the_usual_one_of_the_method(models: Models, weak: Pipeline) -> None:
    sd = models("sd").native
    for method, scale, more in (("apg", 7.5, {}), ("cfg++", 0.6, {}), ("autoguidance", 2.0, {"weak": weak})):
        images = sd("lion", guidance={"method": method}, sampler="ddim", steps=2, height=16, width=16, **more)
        assert images.drawing.guidance.scale == scale


def test_an_interval_holds_for_every_method(models: Models, weak: Pipeline) -> None:
    sd, few = models("sd").native, {"steps": 4, "height": 16, "width": 16, "sampler": "ddim"}
    ratios = [row.sigma / row.alpha for row in sd.plan("ddim", steps=4).rows]
    interval = (ratios[2] * 1.01, ratios[0] * 1.01)  # the first two rows
    for method, nfe in (("apg", 6), ("cfg++", 6), ("pag", 8), ("autoguidance", 6)):
        given: dict[str, Any] = {"weak": weak} if method == "autoguidance" else {}
        guidance: dict[str, Any] = {"scale": 0.6 if method == "cfg++" else 3.0, "method": method}
        assert sd("lion", guidance={**guidance, "interval": interval}, **given, **few).nfe == nfe


@pytest.mark.parametrize(
    ("method", "more", "why"),
    [
        ("autoguidance", {}, "is guided away from the weaker model instead"),
        ("pag", {"scale": 1.0}, "is not guided at scale 1"),
        ("apg", {"scale": 1.0}, "is not guided at scale 1"),
    ],
)
def test_a_negative_prompt_that_a_method_has_no_use_for_is_said(
    models: Models, weak: Pipeline, method: str, more: dict[str, Any], why: str
) -> None:
    given: dict[str, Any] = {"weak": weak} if method == "autoguidance" else {}
    with pytest.warns(NoEffect, match=f"the negative prompt has no effect: sd {why}"):
        models("sd").native("lion", negative="blue", guidance={"method": method, **more}, **given, **QUICK)


def test_a_network_that_is_told_its_scale_has_perturbed_attention_beside_it(models: Models) -> None:
    lcm, flux = models("lcm").native, models("flux").native
    images = lcm("lion", guidance={"scale": 6.0, "method": "pag"}, **QUICK)
    assert images.nfe == 6
    assert not torch.allclose(images.tensor, lcm("lion", guidance=6.0, **QUICK).tensor, atol=1e-4)
    assert not torch.allclose(
        images.tensor, lcm("lion", guidance={"scale": 2.0, "method": "pag"}, **QUICK).tensor, atol=1e-4
    )
    with pytest.raises(fs.InvalidInput, match="is told its guidance scale, so that apg has nothing to guide"):
        lcm("lion", guidance={"method": "apg"}, **QUICK)
    with pytest.raises(fs.InvalidInput, match="FluxTransformer2DModel has none"):
        flux("lion", guidance={"method": "pag"}, **QUICK)


def test_pictures_in_have_the_methods_too(models: Models, weak: Pipeline) -> None:
    sd = models("sd").native
    apg = fs.Guidance(4.0, method="apg", options=APG)
    images = sd.img2img(picture(), "lion", strength=0.5, sampler="ddim", steps=6, seed=3, guidance=apg, **SIZE)
    plan = Strength(0.5).plan(sd.model.schedule, images.drawing.sampling)
    latents = encoded(sd.model, picture(), (16, 24), "crop").latents
    entry: Any = start(sd.model, plan, [images.drawing], Origin(latents))
    denoiser = fs.Guided(base(sd), said(sd, ["lion"]), said(sd, [""]), 4.0, method=fs.APG(**APG))
    assert torch.equal(images.tensor, sd.decode(fs.sample(plan, denoiser, start=entry, seed=3)))
    assert images.nfe == 6
    assert sd.inpaint(picture(), mask(), "lion", guidance={"method": "pag"}, **QUICK | SIZE).nfe == 9
    edited = sd.edit(picture(), "circle", "lion", guidance={"scale": 0.6, "method": "cfg++"}, **QUICK | SIZE)
    plain = sd.edit(picture(), "circle", "lion", guidance=1.0, **QUICK | SIZE)
    assert (edited.nfe, plain.nfe) == (2 * plain.nfe, plain.nfe)
    assert not torch.allclose(edited.tensor, plain.tensor, atol=1e-4)
    found = sd.invert(picture(), "lion", guidance={"scale": 0.6, "method": "cfg++"}, **QUICK | SIZE)
    assert found.psnr_latents != sd.invert(picture(), "lion", guidance=1.0, **QUICK | SIZE).psnr_latents
    auto: dict[str, Any] = {"guidance": {"scale": 3.0, "method": "autoguidance"}, "weak": weak}
    frames = sd.interpolate(["lion", "circle"], seeds=[1, 2], frames=3, **auto, **QUICK)
    assert frames.nfe == 6
    assert torch.allclose(frames.tensor[2:], sd("circle", seed=2, **auto, **QUICK).tensor, atol=1e-5)


def test_a_network_that_was_trained_to_inpaint_is_guided_by_name(nine: Twins) -> None:
    pipe = nine.native
    guidance = fs.Guidance(5.0, method="pag", options={"scale": 2})
    few: dict[str, Any] = {"sampler": "ddim", "steps": 2, "seed": 3, "paste": False, **SIZE}
    images = pipe.inpaint(picture(), mask(), "lion", guidance=guidance, **few)
    plan = images.drawing.sampling.compile(pipe.model.schedule)
    chosen = torch.zeros(1, 1, 16, 24)
    chosen[..., :8] = 1
    order = Order(images.drawing, plan, Run(1))
    given = origin(pipe.model, order, encoded(pipe.model, picture(), (16, 24), "crop"), chosen)
    assert given.channels is not None
    texts, channels = [said(pipe, [text]) for text in ("lion", "")], {"channels": given.channels}
    positive, negative = ({**text, **channels} for text in texts)
    denoiser = fs.Guided(base(pipe), positive, negative, 5.0, method=fs.PAG(2.0))
    entry: Any = start(pipe.model, plan, [images.drawing], given)
    latents = fs.sample(plan, denoiser, start=entry, seed=3)
    assert torch.equal(images.tensor, pipe.decode(latents))
    assert images.nfe == 6


WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"method": "cfgg"}, {}, "unknown guidance method 'cfgg': did you mean 'cfg'.* known are apg, autoguidance"),
    ({"method": 3}, {}, "unknown guidance method '3'"),
    ({"options": {"eta": 1}}, {}, "unknown option of the guidance method cfg 'eta': .*known are rescale"),
    ({"method": "cfg++", "options": {"eta": 1}}, {}, "has no options, got 'eta'"),
    ({"method": "apg", "options": {"norm": 1}}, {}, "did you mean 'norm_limit'. known are eta, momentum"),
    ({"method": "apg", "norm": 1}, {}, "did you mean 'norm_limit'. known are eta, momentum"),
    ({"method": "apg", "options": {"eta": "x"}}, {}, "option eta is a finite number, got 'x'"),
    ({"method": "apg", "options": {"momentum": 2}}, {}, r"momentum .* must lie in \(-1, 1\)"),
    ({"method": "apg", "options": {"norm_limit": 0}}, {}, "norm_limit must be a finite number above zero"),
    ({"method": "apg", "options": [1]}, {}, r"options .*mapping"),
    ({"method": "apg", "rescale": 0.5}, {}, "unknown option of the guidance method apg 'rescale'"),
    ({"method": "cfg++", "scale": 7.5}, {}, r"scale of CFG\+\+ must lie in \[0, 1\], got 7.5"),
    ({"method": "cfg++"}, {"sampler": "unipc-3"}, "unipc-3 has one estimate.*use the sampler 'ddim' or 'tcd'"),
    ({"method": "cfg-zero*"}, {}, "needs a network that predicts flow, got epsilon"),
    ({"method": "pag", "options": {"layers": "middle"}}, {}, "no self-attention layer is named 'middle'"),
    ({"method": "autoguidance"}, {}, "give weak=, a pipeline or its path"),
    ({"method": "autoguidance"}, {"weak": "absent"}, "unknown model 'absent'"),
    ({"method": "autoguidance"}, {"weak": "digits"}, "the weaker model digits has subjects labels, and sd has prompts"),
    ({"method": "autoguidance"}, {"weak": 3}, "weak is a loaded pipeline or its path, got int"),
]


@pytest.mark.parametrize(("guidance", "more", "message"), WRONG)
def test_a_wrong_method_is_named_before_anything_is_encoded(
    models: Models, guidance: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    sd = load(models("sd").folder)
    with pytest.raises(fs.InvalidInput, match=message):
        sd("lion", guidance=guidance, **{**QUICK, **more})
    with pytest.raises(fs.InvalidInput, match=message):
        sd.edit(picture(), "lion", "circle", guidance=guidance, **{**QUICK, **more})
    assert sd.cache.encodes == 0


def test_a_weaker_model_of_another_task_is_refused(models: Models, nine: Twins, weak: Pipeline) -> None:
    sd = models("sd").native
    for other, message in (
        (nine.native, "further input channels 5, and sd has 0"),
        (models("lcm").native, "a distilled guidance scale True, and sd has False"),
        (models("sd").native, "weak is sd itself"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            sd("lion", guidance={"method": "autoguidance"}, weak=other, **QUICK)
    with pytest.raises(fs.InvalidInput, match="weak is the weaker model of autoguidance, and the guidance method is"):
        sd("lion", weak=weak, **QUICK)


def test_velocities_of_the_first_rows_are_refused_where_they_would_be_remembered(models: Models) -> None:
    sd3 = models("sd3").native
    with pytest.raises(fs.InvalidInput, match="heun remembers the data estimates of its first rows"):
        sd3("lion", guidance={"method": "cfg-zero"}, sampler="heun", **QUICK)
    kept = {"method": "cfg-zero", "options": {"zero_init": 0}}
    assert sd3("lion", guidance=kept, sampler="heun", **QUICK).nfe == 10
    with pytest.raises(fs.InvalidInput, match="SD3Transformer2DModel has none"):
        sd3("lion", guidance={"method": "pag"}, **QUICK)


def test_nothing_is_warned_of_where_all_acts(models: Models, weak: Pipeline) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        auto = {"method": "autoguidance", "interval": (0.1, 20.0)}
        models("sd").native("lion", guidance=auto, weak=weak, **QUICK)
