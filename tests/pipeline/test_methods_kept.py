"""Methods of guidance by name: in recipes and jobs, and with models of classes or of no condition."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fewstep as fs
from fewstep import Guidance
from fewstep.batch import Batch, PromptLine, draw_batch
from fewstep.drawing import read
from fewstep.pipeline import Pipeline, load
from models.by_hand import APG, base
from models.tiny import write
from models.tiny_diffusers import Twins

from .test_img2img import SIZE, picture

Models = Callable[..., Twins]
QUICK: dict[str, Any] = {"steps": 3, "height": 16, "width": 16}


def test_a_picture_remembers_its_method(models: Models, weak: Pipeline, tmp_path: Path) -> None:
    sd = models("sd").native
    images = sd("lion", guidance=Guidance(4.0, method="apg", options=APG), seed=2, **QUICK)
    stamp = read(images.save(tmp_path / "apg.png"))
    assert stamp.drawing.guidance == Guidance(4.0, method="apg", options=APG)
    assert load(models("sd").folder).redraw(stamp).digest == stamp.made.pixels
    images = sd.img2img(picture(), "lion", guidance={"method": "autoguidance"}, weak=weak, **QUICK | SIZE)
    stamp = read(images.save(tmp_path / "auto.png"))
    assert sd.redraw(stamp, image=picture(), weak=weak).digest == stamp.made.pixels
    with pytest.raises(fs.InvalidInput, match=f"a weaker model of digest {weak.model.digest}: give it as weak="):
        sd.redraw(stamp, image=picture())
    other = models("sd", prediction_type="v_prediction").native
    with pytest.raises(fs.InvalidInput, match=f"the weaker model {weak.model.digest}, and weak has the digest"):
        sd.redraw(stamp, image=picture(), weak=other)
    with pytest.raises(fs.InvalidInput, match="drawn with no weaker model"):
        sd.redraw(sd("lion", **QUICK), weak=weak)


def test_a_batch_keeps_its_method(models: Models, weak: Pipeline, tmp_path: Path) -> None:
    sd = models("sd").native
    lines = [PromptLine("lion", (seed,)) for seed in range(3)]

    def batch(guidance: Any = None, sampler: str = "ddim", **more: Any) -> Batch:
        call = {"sampler": sampler, "steps": 2, "height": 16, "width": 16, "guidance": guidance, **more}
        return Batch.of(sd, lines, call=call, size=2)

    auto = {"method": "autoguidance"}
    assert draw_batch(batch(auto, weak=weak), tmp_path / "a").nfe == 4
    drawn = [json.loads(line) for line in (tmp_path / "a/manifest.jsonl").read_text().splitlines()]
    kept = [(line["drawing"]["guidance"]["method"], line["drawing"]["guidance"]["scale"]) for line in drawn]
    assert set(kept) == {("autoguidance", 2.0)}
    assert {line["nfe"] for line in drawn} == {4.0}
    assert json.loads((tmp_path / "a/job.json").read_text())["guidance"]["weaker"] == weak.model.digest
    first = (tmp_path / "a/000000-lion-seed0.png").read_bytes()
    (tmp_path / "a/000000-lion-seed0.png").unlink()
    assert draw_batch(batch(auto, weak=weak), tmp_path / "a").drawn == 2
    assert (tmp_path / "a/000000-lion-seed0.png").read_bytes() == first
    other = models("sd", prediction_type="v_prediction").native
    for again in (batch(), batch(auto, weak=other)):
        with pytest.raises(fs.InvalidInput, match="guidance: "):
            draw_batch(again, tmp_path / "a")
    assert batch().identity() == batch({"method": "cfg", "options": {}, "scale": 7.5}).identity()
    assert batch({"method": "pag"}).identity() != batch({"method": "pag", "options": {"scale": 2}}).identity()
    for guidance, sampler, message in (
        (auto, "ddim", "give weak="),
        ({"method": "cfg-zero"}, "ddim", "predicts flow"),
        ({"method": "apg", "options": {"norm": 1}}, "ddim", "norm_limit"),
        ({"method": "cfg++"}, "unipc-3", "use the sampler 'ddim'"),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            batch(guidance, sampler)


def test_a_batch_size_is_found_with_rows_that_cost_nothing(models: Models, tmp_path: Path) -> None:
    sd3 = models("sd3").native
    call = {"sampler": "euler", "steps": 3, "guidance": {"method": "cfg-zero"}}
    report = draw_batch(Batch.of(sd3, [PromptLine("lion"), PromptLine("red")], call=call), tmp_path / "a")
    assert (report.batch, report.nfe) == (2, 4)


def labelled(pipe: Pipeline, seed: int = 0) -> tuple[fs.Network, dict[str, Tensor], dict[str, Tensor]]:
    labels = torch.tensor([0, 2])
    return base(pipe), {"label": labels}, {"label": labels * 0 + 3}


def test_models_of_classes_have_the_methods_too(pipe: Pipeline, tmp_path: Path) -> None:
    other = load(write(tmp_path / "other.safetensors", seed=3))
    network, own, empty = labelled(pipe)
    few: dict[str, Any] = {"sampler": "ddim", "steps": 3, "seed": 7}
    plan = pipe.plan("ddim", steps=3)
    for method, scale, more, denoiser in (
        ("apg", 4.0, {}, fs.Guided(network, own, empty, 4.0, method=fs.APG(**APG))),
        ("cfg++", 0.6, {}, fs.Guided(network, own, empty, 0.6, method="cfg++")),
        (
            "autoguidance",
            3.0,
            {"weak": other},
            fs.Guided(network, own, scale=3.0, method="autoguidance", weaker=labelled(other)[0].given(own)),
        ),
    ):
        options = APG if method == "apg" else {}
        images = pipe([0, 2], guidance={"scale": scale, "method": method, "options": options}, **more, **few)
        assert torch.equal(images.tensor, fs.sample(plan, denoiser, shape=(2, 1, 4, 4), seed=7)), method
        assert images.nfe == 6
        stamp = read(images.save(tmp_path / "x.png"))
        assert pipe.redraw(stamp, weak=more.get("weak")).digest == stamp.made.pixels
    for given, message in (
        ({"guidance": {"method": "pag"}}, "UNet has none"),
        ({"guidance": {"method": "cfg-zero"}}, "predicts flow"),
        ({"guidance": {"method": "autoguidance"}, "weak": other, "negative": 1}, "cannot act in autoguidance"),
        (
            {"guidance": {"method": "apg", "scale": 1}, "negative": 1},
            "cannot act at guidance scale 1",
        ),
        (
            {"guidance": {"method": "autoguidance"}, "weak": load(write(tmp_path / "b.safetensors", size=8))},
            r"the size of images \(8, 8\), and tiny has \(4, 4\)",
        ),
    ):
        with pytest.raises(fs.InvalidInput, match=message):
            pipe([0], **given, **few)


def test_a_label_guided_away_from_itself_costs_one_evaluation(pipe: Pipeline) -> None:
    few: dict[str, Any] = {"sampler": "ddim", "steps": 2}
    for method, scale in (("apg", 4.0), ("cfg++", 0.6)):
        images = pipe([1, 2], guidance={"scale": scale, "method": method}, negative=1, **few)
        assert images.nfe == 3  # 2 x (1 + 2) evaluations of 2 images
        assert torch.allclose(images.tensor[0], pipe([1], guidance=1.0, **few).tensor[0], atol=1e-6)


def test_a_model_without_a_condition_is_guided_by_its_attention_or_a_weaker_one(models: Models) -> None:
    ddpm = models("ddpm").native
    plain = ddpm(steps=2, sampler="ddim")
    images = ddpm(steps=2, sampler="ddim", guidance={"method": "pag", "layers": "up_blocks"})
    assert (plain.nfe, images.nfe) == (2, 4)
    assert not torch.allclose(plain.tensor, images.tensor, atol=1e-4)
    spec = fs.NetworkSpec(ddpm.model.schedule, ddpm.model.prediction, ddpm.state_shape())
    weaker = load(lambda x, t: 0.5 * x, spec=spec)
    images = ddpm(steps=2, sampler="ddim", guidance={"method": "autoguidance"}, weak=weaker)
    auto = fs.Guided(base(ddpm), {}, scale=2.0, method="autoguidance", weaker=base(weaker))
    expected = fs.sample(ddpm.plan("ddim", steps=2), auto, shape=(1, *ddpm.state_shape()), seed=0)
    assert torch.allclose(images.tensor, expected, atol=1e-6)
    for method in ("apg", "cfg++"):
        with pytest.raises(fs.InvalidInput, match=r"takes no condition.*or use the guidance method"):
            ddpm(steps=2, sampler="ddim", guidance={"method": method})
    dit = models("dit").native
    assert dit([3], steps=2, sampler="ddim", guidance={"method": "pag", "layers": "1"}).nfe == 6
