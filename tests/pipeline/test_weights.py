"""Guidance by row and dynamic thresholding in pipelines: in recipes, jobs and pictures, and what is refused."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep import Guidance
from fewstep.batch import Batch, PromptLine, draw_batch, read_prompts
from fewstep.drawing import read
from fewstep.pipeline import Pipeline, load
from models.by_hand import APG, base, fitted, said
from models.tiny import CLASSES
from models.tiny_diffusers import Twins

from .test_img2img import SIZE, picture

Models = Callable[..., Twins]
QUICK: dict[str, Any] = {"steps": 3, "height": 16, "width": 16}
ROWS = [1.0, 4.0, 2.5]
PROMPTS, NEGATIVE = ["a red circle", "blue lion"], "green square"


@pytest.mark.parametrize(
    ("name", "method", "sampler", "weights", "nfe", "by_hand"),
    [
        ("sd", "cfg", "unipc-3", ROWS, 5, lambda net, c, n, w: fs.Guided(net, c, n, w)),
        ("sd", "apg", "dpmpp-2m", ROWS, 5, lambda net, c, n, w: fs.Guided(net, c, n, w, method=fs.APG(**APG))),
        ("sd", "cfg++", "ddim", [0.0, 1.0, 0.6], 5, lambda net, c, n, w: fs.Guided(net, c, n, w, method="cfg++")),
        (
            "sd3",
            "cfg-zero",
            "euler",
            [3.0, 1.0, 5.0],
            3,
            lambda net, c, n, w: fs.Guided(net, c, n, w, method="cfg-zero"),
        ),
    ],
)
def test_weights_by_row_are_those_of_the_denoiser_and_come_back_from_the_picture(
    models: Models,
    tmp_path: Path,
    name: str,
    method: str,
    sampler: str,
    weights: list[float],
    nfe: int,
    by_hand: Callable[..., fs.Denoiser],
) -> None:
    pipe = models(name).native
    options = APG if method == "apg" else {}
    guidance = Guidance(weights, method=method, options=options)
    images = pipe(PROMPTS, guidance=guidance, negative=NEGATIVE, sampler=sampler, seed=[4, 9], **QUICK)
    denoiser = by_hand(base(pipe), said(pipe, PROMPTS), said(pipe, [NEGATIVE] * 2), fs.GuidanceSchedule.rows(weights))
    plan = pipe.plan(sampler, **QUICK)
    latents = fs.sample(plan, denoiser, shape=(2, *pipe.state_shape(16, 16)), seed=[4, 9])
    assert torch.equal(images.tensor, pipe.decode(latents))
    assert images.nfe == nfe  # a row with the idle weight costs one evaluation
    stamp = read(images.save(tmp_path / "a.png"))
    assert stamp.drawing.guidance.scale == tuple(weights)
    assert load(models(name).folder).redraw(stamp).digest == stamp.made.pixels


def test_a_schedule_becomes_its_weights_in_the_rows(pipe: Pipeline, models: Models) -> None:
    schedule = fs.GuidanceSchedule.linear(1.0, 5.0)
    images = pipe([0, 2], sampler="heun", steps=3, guidance=schedule)
    assert pipe([0, 2], sampler="heun", steps=3, guidance=lambda ratio: 5 - 4 * ratio / (1 + ratio)).nfe == images.nfe
    plan = pipe.plan("heun", steps=3)
    rows = plan.rows
    expected = [1 + 4 * (1 - row.sigma / (row.alpha + row.sigma)) for row in rows]
    np.testing.assert_allclose(images.drawing.guidance.scale, expected, rtol=1e-12)
    network = base(pipe)
    denoiser = fs.Guided(network, {"label": torch.tensor([0, 2])}, {"label": torch.full((2,), CLASSES)}, schedule)
    assert torch.equal(images.tensor, fs.sample(plan, denoiser, shape=(2, 1, 4, 4)))
    assert torch.equal(images.tensor, pipe([0, 2], sampler=plan, guidance=np.array(expected)).tensor)
    sd = models("sd").native
    whole = sd("lion", sampler="ddim", guidance=schedule, steps=6, height=16, width=16)
    part = sd.img2img(picture(), "lion", sampler="ddim", guidance=schedule, steps=6, strength=0.5, **SIZE)
    assert len(part.drawing.guidance.scale) == 3
    assert part.drawing.guidance.scale == whole.drawing.guidance.scale[3:]
    assert sd.redraw(part, image=picture()).digest == part.digest


def test_a_label_guided_away_from_itself_stays_the_conditional_models(pipe: Pipeline) -> None:
    images = pipe([1, 2], negative=1, sampler="ddim", steps=3, guidance=ROWS, seed=[3, 3])
    alone = pipe([1], sampler="ddim", steps=3, guidance=1, seed=[3])
    torch.testing.assert_close(images.tensor[:1], alone.tensor)
    other = pipe([2], negative=1, sampler="ddim", steps=3, guidance=ROWS, seed=[3])
    torch.testing.assert_close(images.tensor[1:], other.tensor)


def test_a_tuned_plan_takes_weights_by_row_further_by_its_own_factors(pipe: Pipeline) -> None:
    factors = [1.0, 0.5, 2.0]
    plain = fitted(pipe.plan("dpmpp-2m", steps=3))
    by_row = replace(plain, guidance_factors=tuple(factors))
    taken = [1 + (w - 1) * r for w, r in zip(ROWS, factors, strict=True)]
    for guidance in (3.0, ROWS, fs.GuidanceSchedule.linear(2.0, 4.0)):
        with pytest.raises(
            fs.InvalidInput, match="alone follows, and the method is apg: leave the guidance method out"
        ):
            pipe([0, 1], guidance={"scale": guidance, "method": "apg"}, sampler=by_row)
    alone = pipe([0, 1], guidance={"method": "apg", "scale": 1}, sampler=by_row)
    assert torch.equal(alone.tensor, pipe([0, 1], guidance=1, sampler=plain).tensor)
    images = pipe([0, 1], sampler=by_row, guidance=ROWS)
    assert torch.equal(images.tensor, pipe([0, 1], sampler=plain, guidance=taken).tensor)
    assert images.drawing.guidance.scale == tuple(ROWS)


@pytest.mark.parametrize(
    ("guidance", "message"),
    [
        ([1.0, 2.0], "2 guidance weights were given by row, this plan of ddim has 3 rows"),
        ([], "guidance.scale has to"),
        ([1.0, math.nan, 2.0], r"guidance\.scale\.1 has to be a finite number, got nan"),
        ([1.0, "x", 2.0], r"guidance\.scale\.1 has to be a valid number, got 'x'"),
        ("1,2,3", r"guidance\.scale has to be a valid number, got '1,2,3'"),
        ({1: 2}, "guidance.*1"),
        (fs.GuidanceSchedule(lambda ratio: math.inf), "weights are finite"),
        (True, r"guidance\.scale has to be a valid number, got True"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_before_anything_is_drawn(
    pipe: Pipeline, models: Models, guidance: Any, message: str
) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        pipe([0], sampler="ddim", steps=3, guidance=guidance)
    with pytest.raises(fs.InvalidInput, match=message):
        models("sd").native("lion", sampler="ddim", guidance=guidance, **QUICK)


def test_weights_without_a_plan_for_both_ways_or_a_told_scale_are_refused(pipe: Pipeline, models: Models) -> None:
    sd, flux = models("sd").native, models("flux").native
    with pytest.raises(fs.InvalidInput, match="that of a plan: give the plan, or a number"):
        pipe.denoiser([0], guidance=ROWS)
    assert pipe.denoiser([0], guidance=ROWS, plan=pipe.plan("ddim", steps=3)).needs_run
    with pytest.raises(fs.InvalidInput, match="guided by one number both ways, up and down"):
        sd.invert(picture(), "lion", guidance=ROWS, steps=3, **SIZE)
    with pytest.raises(fs.InvalidInput, match="flux is told its guidance scale, one for all rows, and got 3 by row"):
        flux("lion", guidance=ROWS, **QUICK)
    with pytest.raises(fs.InvalidInput, match="cannot act at guidance scale 1"):
        pipe([0], negative=1, sampler="ddim", steps=3, guidance=[1.0, 1.0, 1.0])


def test_a_job_keeps_weights_by_row_of_the_lines_of_a_file(models: Models, tmp_path: Path) -> None:
    sd = models("sd").native
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "lion", "guidance": [1, 4, 2.5]}\n{"prompt": "red"}\n{"prompt": "blue", "guidance": 3}')
    schedule = fs.GuidanceSchedule.cosine(1.0, 3.0)
    plan = sd.plan("ddim", **QUICK)
    call = {"sampler": plan, "guidance": schedule, "height": 16, "width": 16}
    batch = Batch.of(sd, read_prompts(file), (0, 1), call)
    report = draw_batch(batch, tmp_path / "out")
    assert (report.images, report.nfe) == (6, pytest.approx((5 + 6 + 6) / 3))
    lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    scales = [line["drawing"]["guidance"]["scale"] for line in lines]
    assert scales == [ROWS, ROWS, *[schedule.over(plan)] * 2, 3.0, 3.0]
    alone = sd("lion", sampler=plan, guidance=ROWS, seed=[0, 1], count=2, height=16, width=16)
    assert read(tmp_path / "out" / lines[1]["file"]).drawing.guidance == alone.drawing.guidance
    assert draw_batch(batch, tmp_path / "out").drawn == 0
    file.write_text('{"prompt": "lion", "guidance": [1, "4"]}')
    with pytest.raises(fs.InvalidInput, match=r"line 1 of .*guidance\.scale\.1 has to be a valid number, got '4'"):
        Batch.of(sd, read_prompts(file), call=call)
    with pytest.raises(fs.InvalidInput, match="2 guidance weights were given by row"):
        Batch.of(sd, [PromptLine("lion", call={"guidance": [1.0, 2.0]})], call=call)


def test_dynamic_thresholding_is_that_of_the_denoiser_and_comes_back_from_the_picture(
    pipe: Pipeline, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"sampler": "ddim", "steps": 3, "guidance": 6.0, "seed": 5}
    plain = pipe([0, 2], **given)
    for pair in ((0.9, math.inf), (0.9, 1.2)):
        images = pipe([0, 2], estimate={"threshold": pair}, **given)
        denoiser = fs.dynamic_threshold(pipe.denoiser([0, 2], guidance=6.0), *pair)
        by_hand = fs.sample(pipe.plan("ddim", steps=3), denoiser, shape=(2, 1, 4, 4), seed=5)
        assert torch.equal(images.tensor, by_hand)
        assert not torch.equal(images.tensor, plain.tensor)
        stamp = read(images.save(tmp_path / "a.png"))
        assert stamp.drawing.estimate.threshold == pair
        assert pipe.redraw(stamp).digest == stamp.made.pixels
    assert plain.drawing.estimate == fs.Estimate()
    few: dict[str, Any] = {"sampler": "ddim", "steps": 3}
    batch = Batch.of(pipe, [PromptLine(0)], call={**few, "estimate": {"threshold": (0.9, math.inf)}}, size=1)
    assert batch.identity()["estimate"]["threshold"] == [0.9, "inf"]
    draw_batch(batch, tmp_path / "job")
    with pytest.raises(fs.InvalidInput, match=r"estimate: \{.*, yours \{"):
        draw_batch(Batch.of(pipe, [PromptLine(0)], call=few, size=1), tmp_path / "job")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"threshold": (0, 2)}, r"percentile above 0 and up to 1.*got \(0.0, 2.0\)"),
        ({"threshold": (0.9, 0.5)}, "a maximum from 1"),
        ({"threshold": "0.9"}, r"estimate\.threshold has to be a valid tuple, got '0.9'"),
        ({"threshold": (math.nan, 1.0)}, r"threshold\.0 has to be a finite number"),
        ({"threshold": (0.9, math.nan)}, "a maximum from 1"),
        ({"threshold": (0.9, 2.0), "clip": True}, "both bring the data into its range: use one"),
        ({"treshold": (0.9, 2.0)}, "did you mean 'threshold'"),
        (0.9, "estimate is a mapping of its fields, or a value such as fewstep.Estimate, got 0.9"),
    ],
)
def test_a_threshold_that_is_none_is_refused(pipe: Pipeline, given: Any, message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        pipe([0], steps=2, estimate=given)


def test_latents_have_no_range_to_be_brought_into(models: Models) -> None:
    dit = models("dit").native
    with pytest.raises(fs.InvalidInput, match=r"dynamic thresholding is for pixels, .* use rescale or"):
        dit([0], steps=2, estimate=fs.Estimate(threshold=(0.99, 2.0)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": []}, "scale has to"),
        ({"scale": [1, None]}, r"scale\.1 has to be a valid number, got None"),
        ({"scale": "3"}, "scale has to be a valid number, got '3'"),
        ({"scale": None}, "scale has to be a valid number, got None"),
        ({"interval": [0.0]}, r"interval\.1 Field required|interval"),
        ({"interval": [0.0, "nan"]}, r"interval\.1 has to be a valid number, got 'nan'"),
    ],
)
def test_hostile_weights_are_refused_by_field(changes: dict[str, Any], message: str) -> None:
    good = Guidance((1.0, 2.0)).to_json()
    assert Guidance.of(json.loads(json.dumps(good))) == Guidance((1.0, 2.0))
    with pytest.raises(fs.InvalidInput, match=message):
        Guidance.of({**good, **changes})


def test_perturbed_attention_and_autoguidance_take_weights_by_row_too(
    models: Models, weak: Pipeline, tmp_path: Path
) -> None:
    sd = models("sd").native
    network, own, empty = base(sd), said(sd, ["lion"]), said(sd, [""])
    theirs = base(weak).given(said(weak, ["lion"]))
    rows = fs.GuidanceSchedule.rows(ROWS)
    shape = (1, *sd.state_shape(16, 16))
    for method, more, denoiser, nfe in (
        ("pag", {}, fs.Guided(network, own, empty, rows, method="pag"), 8),
        ("autoguidance", {"weak": weak}, fs.Guided(network, own, scale=rows, method="autoguidance", weaker=theirs), 5),
    ):
        images = sd("lion", guidance={"scale": ROWS, "method": method}, sampler="ddim", **more, **QUICK)
        latents = fs.sample(sd.plan("ddim", **QUICK), denoiser, shape=shape)
        torch.testing.assert_close(images.tensor, sd.decode(latents))
        assert images.nfe == nfe
        stamp = read(images.save(tmp_path / "a.png"))
        assert sd.redraw(stamp, **more).digest == stamp.made.pixels


def test_a_denoiser_without_a_plan_is_not_bound_to_the_usual_one(pipe: Pipeline) -> None:
    plan = pipe.plan("ddim", steps=3)
    denoiser = pipe.denoiser([0, 2], guidance={"method": "cfg++", "scale": 0.6})
    images = pipe([0, 2], sampler=plan, guidance={"method": "cfg++", "scale": 0.6}, seed=4)
    assert torch.equal(fs.sample(plan, denoiser, shape=(2, 1, 4, 4), seed=4), images.tensor)
    with pytest.raises(fs.InvalidInput, match="that of a plan: give the plan, or a number"):
        pipe.denoiser([0], guidance=fs.GuidanceSchedule.linear(1.0, 3.0))
