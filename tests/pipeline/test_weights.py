"""Guidance by row and dynamic thresholding in pipelines: in recipes, jobs and pictures, and what is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewstep as fs
from fewstep.pipeline import Guidance, Item, Job, Pipeline, TextPipeline, draw_job, load, read, read_prompts
from fewstep.tuning.table import plan_of, table_of

from .by_hand import APG, base, said
from .conftest import Model
from .test_img2img import SIZE, picture
from .tiny import CLASSES

Models = Callable[..., Model]
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
    given: dict[str, Any] = {"guidance_method": method, "guidance_options": options, "negative": NEGATIVE}
    images = pipe(PROMPTS, guidance=weights, sampler=sampler, seed=[4, 9], **given, **QUICK)
    denoiser = by_hand(base(pipe), said(pipe, PROMPTS), said(pipe, [NEGATIVE] * 2), fs.GuidanceSchedule.rows(weights))
    plan = pipe.plan(sampler, **QUICK)
    latents = fs.sample(plan, denoiser, shape=(2, *pipe.latent_shape(16, 16)), seed=[4, 9])
    assert torch.equal(images.tensor, pipe.decoder(latents))
    assert images.nfe == nfe  # a row with the idle weight costs one evaluation
    stamp = read(images.save(tmp_path / "a.png"))
    assert stamp.recipe.guidance.scale == tuple(weights)
    assert load(models(name).folder).redraw(stamp.recipe).digest == stamp.pixels


def test_a_schedule_becomes_its_weights_in_the_rows(pipe: Pipeline, models: Models) -> None:
    schedule = fs.GuidanceSchedule.linear(1.0, 5.0)
    images = pipe([0, 2], sampler="heun", steps=3, guidance=schedule)
    assert pipe([0, 2], sampler="heun", steps=3, guidance=lambda ratio: 5 - 4 * ratio / (1 + ratio)).nfe == images.nfe
    plan = pipe.plan("heun", steps=3)
    rows = plan.rows
    expected = [1 + 4 * (1 - row.sigma / (row.alpha + row.sigma)) for row in rows]
    np.testing.assert_allclose(images.recipe.guidance.scale, expected, rtol=1e-12)
    network = fs.Network(pipe.network, pipe.schedule, pipe.prediction)
    denoiser = fs.Guided(network, {"label": torch.tensor([0, 2])}, {"label": torch.full((2,), CLASSES)}, schedule)
    assert torch.equal(images.tensor, fs.sample(plan, denoiser, shape=(2, 1, 4, 4)))
    assert torch.equal(images.tensor, pipe([0, 2], sampler=plan, guidance=np.array(expected)).tensor)
    sd = models("sd").native
    whole = sd("lion", sampler="ddim", guidance=schedule, steps=6, height=16, width=16)
    part = sd.img2img(picture(), "lion", sampler="ddim", guidance=schedule, steps=6, strength=0.5, **SIZE)
    assert len(part.recipe.guidance.scale) == 3
    assert part.recipe.guidance.scale == whole.recipe.guidance.scale[3:]
    assert sd.redraw(part.recipe, image=picture()).digest == part.digest


def test_a_label_guided_away_from_itself_stays_the_conditional_models(pipe: Pipeline) -> None:
    images = pipe([1, 2], negative=1, sampler="ddim", steps=3, guidance=ROWS, seed=[3, 3])
    alone = pipe([1], sampler="ddim", steps=3, guidance=1, seed=[3])
    torch.testing.assert_close(images.tensor[:1], alone.tensor)
    other = pipe([2], negative=1, sampler="ddim", steps=3, guidance=ROWS, seed=[3])
    torch.testing.assert_close(images.tensor[1:], other.tensor)


def test_a_tuned_plan_takes_weights_by_row_further_by_its_own_factors(pipe: Pipeline) -> None:
    table = table_of(pipe.plan("dpmpp-2m", steps=3))
    assert table is not None
    factors = [1.0, 0.5, 2.0]
    by_row = plan_of(table, pipe.schedule, factors=factors)
    plain = plan_of(table, pipe.schedule)
    taken = [1 + (w - 1) * r for w, r in zip(ROWS, factors, strict=True)]
    for guidance in (3.0, ROWS, fs.GuidanceSchedule.linear(2.0, 4.0)):
        with pytest.raises(
            fs.InvalidInput, match="alone follows, and the method is apg: leave the guidance method out"
        ):
            pipe([0, 1], guidance_method="apg", guidance=guidance, sampler=by_row)
    alone = pipe([0, 1], guidance_method="apg", guidance=1, sampler=by_row)
    assert torch.equal(alone.tensor, pipe([0, 1], guidance=1, sampler=plain).tensor)
    images = pipe([0, 1], sampler=by_row, guidance=ROWS)
    assert torch.equal(images.tensor, pipe([0, 1], sampler=plain, guidance=taken).tensor)
    assert images.recipe.guidance.scale == tuple(ROWS)


@pytest.mark.parametrize(
    ("guidance", "message"),
    [
        ([1.0, 2.0], "2 guidance weights were given by row, this plan of ddim has 3 rows"),
        ([], "weights by row are finite numbers"),
        ([1.0, math.nan, 2.0], "weights by row are finite numbers"),
        ([1.0, "x", 2.0], "weights by row are finite numbers"),
        (
            "1,2,3",
            "guidance is a number, one for each row of the plan, or a GuidanceSchedule or function of .*, got '1,2,3'",
        ),
        ({1: 2}, "guidance is a number, one for each row"),
        (fs.GuidanceSchedule(lambda ratio: math.inf), "weights are finite"),
        (True, "guidance must be a finite number, got True"),
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
    items = tuple(item for line in read_prompts(file) for item in line.items((0, 1), None, schedule))
    plan = sd.plan("ddim", **QUICK)
    job = Job(sd, items, plan, settings={"height": 16, "width": 16})
    report = draw_job(job, tmp_path / "out")
    assert (report.images, report.nfe) == (6, pytest.approx((5 + 6 + 6) / 3))
    lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    assert [line["guidance"] for line in lines] == [ROWS, ROWS, *[schedule.over(plan)] * 2, 3.0, 3.0]
    alone = sd("lion", sampler=plan, guidance=ROWS, seed=[0, 1], count=2, height=16, width=16)
    assert read(tmp_path / "out" / lines[1]["file"]).recipe.guidance == alone.recipe.guidance
    assert draw_job(job, tmp_path / "out").drawn == 0
    file.write_text('{"prompt": "lion", "guidance": [1, "4"]}')
    with pytest.raises(fs.InvalidInput, match="a list with one for each row of the plan, got"):
        read_prompts(file)
    with pytest.raises(fs.InvalidInput, match="2 guidance weights were given by row"):
        Job(sd, (Item("lion", guidance=[1.0, 2.0]),), plan)


def test_dynamic_thresholding_is_that_of_the_denoiser_and_comes_back_from_the_picture(
    pipe: Pipeline, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"sampler": "ddim", "steps": 3, "guidance": 6.0, "seed": 5}
    plain = pipe([0, 2], **given)
    for threshold, pair in ((0.9, (0.9, math.inf)), ((0.9, 1.2), (0.9, 1.2))):
        images = pipe([0, 2], dynamic_threshold=threshold, **given)
        denoiser = fs.dynamic_threshold(pipe.denoiser([0, 2], guidance=6.0), *pair)
        by_hand = fs.sample(pipe.plan("ddim", steps=3), denoiser, shape=(2, 1, 4, 4), seed=5)
        assert torch.equal(images.tensor, by_hand)
        assert not torch.equal(images.tensor, plain.tensor)
        stamp = read(images.save(tmp_path / "a.png"))
        assert stamp.recipe.guidance.threshold == pair
        assert pipe.redraw(stamp.recipe).digest == stamp.pixels
    assert "threshold" not in plain.recipe.to_json()["guidance"]
    job = Job(pipe, (Item(0),), pipe.plan("ddim", steps=3), batch=1, settings={"dynamic_threshold": 0.9})
    assert job.identity()["dynamic_threshold"] == [0.9, None]
    draw_job(job, tmp_path / "job")
    with pytest.raises(fs.InvalidInput, match=r"its dynamic_threshold is \[0.9, null\], yours null"):
        draw_job(Job(pipe, (Item(0),), job.plan, batch=1), tmp_path / "job")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dynamic_threshold": 0}, r"percentile above 0 and up to 1.*got \(0, inf\)"),
        ({"dynamic_threshold": (0.9, 0.5)}, "a maximum from 1"),
        ({"dynamic_threshold": "0.9"}, "such as 0.995"),
        ({"dynamic_threshold": math.nan}, "percentile above 0"),
        ({"dynamic_threshold": 0.9, "clip": True}, "both bring the data into its range: use one"),
    ],
)
def test_a_threshold_that_is_none_is_refused(pipe: Pipeline, given: dict[str, Any], message: str) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        pipe([0], steps=2, **given)


def test_latents_have_no_range_to_be_brought_into(models: Models) -> None:
    dit = models("dit").native
    with pytest.raises(fs.InvalidInput, match=r"dynamic_threshold is for pixels, .* use rescale or"):
        dit([0], steps=2, dynamic_threshold=0.99)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": []}, "scale is"),
        ({"scale": [1, None]}, "scale is"),
        ({"scale": "3"}, "scale is '3'"),
        ({"threshold": [0.9]}, "a list of two numbers"),
        ({"threshold": [2, None]}, "percentile above 0"),
        ({"threshold": 0.9}, "threshold is 0.9"),
    ],
)
def test_hostile_weights_are_refused_by_field(changes: dict[str, Any], message: str) -> None:
    good = Guidance((1.0, 2.0), threshold=(0.9, math.inf)).to_json()
    assert Guidance.from_json(json.loads(json.dumps(good))) == Guidance((1.0, 2.0), threshold=(0.9, math.inf))
    with pytest.raises(fs.InvalidInput, match=message):
        Guidance.from_json({**good, **changes})


def test_perturbed_attention_and_autoguidance_take_weights_by_row_too(
    models: Models, weak: TextPipeline, tmp_path: Path
) -> None:
    sd = models("sd").native
    network, own, empty = base(sd), said(sd, ["lion"]), said(sd, [""])
    theirs = base(weak).given(said(weak, ["lion"]))
    rows = fs.GuidanceSchedule.rows(ROWS)
    shape = (1, *sd.latent_shape(16, 16))
    for method, more, denoiser, nfe in (
        ("pag", {}, fs.Guided(network, own, empty, rows, method="pag", module=sd.module), 8),
        ("autoguidance", {"weak": weak}, fs.Guided(network, own, None, rows, method="autoguidance", weaker=theirs), 5),
    ):
        images = sd("lion", guidance=ROWS, guidance_method=method, sampler="ddim", **more, **QUICK)
        latents = fs.sample(sd.plan("ddim", **QUICK), denoiser, shape=shape)
        torch.testing.assert_close(images.tensor, sd.decoder(latents))
        assert images.nfe == nfe
        stamp = read(images.save(tmp_path / "a.png"))
        assert sd.redraw(stamp.recipe, **more).digest == stamp.pixels
