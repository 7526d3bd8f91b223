"""Batches whose images differ in sampler, steps and guidance: each is as if alone, and a kill changes nothing."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.batch import Batch, PromptLine, draw_batch, read_prompts
from fewstep.drawing import Drawing, read
from fewstep.models import Model
from fewstep.pipeline import Images, Pipeline, draw_in_slots
from models.by_hand import APG, other_unet
from models.tiny_diffusers import Twins

Models = Callable[..., Twins]
SLOTS = 4
SIZE = {"height": 16, "width": 16}
WORDS = ["a red circle", "blue lion", "green square left of red lion", "photo"]
APG_BY_ROW: dict[str, Any] = {"scale": [1.0, 4.0, 2.5], "method": "apg", "options": APG}
PAG: dict[str, Any] = {"scale": 3.0, "method": "pag", "options": {"scale": 2.0}}
WAYS: dict[str, list[dict[str, Any]]] = {
    "sd": [
        {"sampler": "ddim", "steps": 4, "guidance": 5.0},
        {"sampler": "unipc-3", "steps": 6, "guidance": {"scale": 3.0, "rescale": 0.7}, "negative": "blue"},
        {"sampler": "dpmpp-2m", "steps": 3, "guidance": APG_BY_ROW, "negative": "green"},
        {"sampler": "ddim", "steps": 5, "guidance": {"scale": 0.6, "method": "cfg++"}},
        {"sampler": "heun", "steps": 2, "guidance": PAG},
        {"sampler": "sde-dpmpp-2m", "steps": 4, "guidance": {"scale": 4.0, "interval": [0.5, 5.0]}},
        {"sampler": "euler", "steps": 3, "grid": "karras", "guidance": {"scale": 1.0, "method": "pag"}},
        {"sampler": "euler-a", "steps": 7, "guidance": 1.0},
    ],
    "sd3": [
        {"sampler": "euler", "steps": 4, "guidance": {"scale": 4.0, "method": "cfg-zero"}},
        {"sampler": "unipc-2", "steps": 5, "guidance": {"scale": 3.0, "method": "cfg-zero*", "zero_init": 0}},
        {"sampler": "heun", "steps": 2, "guidance": {"scale": 4.0, "method": "apg", "momentum": -0.5}},
        {"sampler": "dpmpp-2m", "steps": 6, "guidance": 5.0, "negative": "blue"},
        {"sampler": "ddim", "steps": 3, "guidance": {"scale": 0.6, "method": "cfg++"}},
        {"sampler": "lms-4", "steps": 5, "grid": "quadratic", "guidance": 1.0},
    ],
}


def lines_of(name: str) -> list[dict[str, Any]]:
    """24 lines of a file of prompts."""
    ways = WAYS[name]
    return [{"prompt": WORDS[i % 4], "seed": 100 + i, **ways[i % len(ways)], **SIZE} for i in range(24)]


def written(folder: Path, name: str) -> Path:
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines_of(name)))
    return path


def watched(model: Model, shapes: list[tuple[int, ...]]) -> Pipeline:
    """The pipeline of a model whose network tells the shapes that it is called with."""
    network: Any = model.network

    def call(module: Any, x: torch.Tensor, t: torch.Tensor, **condition: torch.Tensor) -> Any:
        shapes.append(tuple(x.shape))
        assert {len(value) for value in condition.values()} == {len(x)}
        return network.func(module, x, t, **condition)

    return Pipeline(replace(model, network=partial(call, model.module)))


def drawn(batch: Batch) -> dict[int, Images]:
    return {i: one for part in batch.parts() for i, one in zip(part, batch.draw(part), strict=True)}


@pytest.mark.parametrize("name", WAYS)
def test_each_of_24_different_images_is_as_if_it_were_alone(models: Models, tmp_path: Path, name: str) -> None:
    shapes: list[tuple[int, ...]] = []
    native = models(name).native
    pipe = watched(native.model, shapes)
    batch = Batch.of(pipe, read_prompts(written(tmp_path, name)), size=SLOTS)
    assert (batch.driver, len(batch.items), len(batch.orders)) == ("slots", 24, len(WAYS[name]))
    found = drawn(batch)
    assert set(shapes) == {(SLOTS, *pipe.state_shape(16, 16))}
    for i, line in enumerate(lines_of(name)):
        subject, call = line["prompt"], {key: value for key, value in line.items() if key != "prompt"}
        alone = draw_in_slots(pipe.model, [pipe.order(subject, **call)], SLOTS)[0]
        assert torch.equal(found[i].tensor, alone.tensor), line
        eager = native(subject, batch=1, **call)
        assert (found[i].tensor - eager.tensor).abs().max() < 1e-5 * eager.tensor.abs().max().clamp_min(1), line
        assert found[i].nfe == alone.nfe == eager.nfe, line
        assert found[i].drawing == eager.drawing
    assert len({one.digest for one in found.values()}) == 24


def test_other_company_and_another_order_change_no_bit(models: Models, tmp_path: Path) -> None:
    sd = models("sd").native
    lines = read_prompts(written(tmp_path, "sd"))
    whole, turned = (drawn(Batch.of(sd, part, size=SLOTS)) for part in (lines, lines[::-1]))
    some = drawn(Batch.of(sd, lines[5:9], size=SLOTS))
    assert all(torch.equal(whole[i].tensor, turned[23 - i].tensor) for i in range(24))
    assert all(torch.equal(whole[5 + i].tensor, some[i].tensor) for i in range(4))


def test_autoguidance_shares_slots_with_its_like(models: Models, weak: Pipeline) -> None:
    sd = models("sd").native
    auto = {"method": "autoguidance", "scale": 2.5}
    lines = [
        PromptLine("lion", (1,), {"sampler": "ddim", "steps": 3, "guidance": auto, "weak": weak}),
        PromptLine("red", (2,), {"sampler": "ddim", "steps": 2, "guidance": 3.0}),
        PromptLine("blue", (3,), {"sampler": "unipc-2", "steps": 4, "guidance": auto, "weak": weak}),
    ]
    batch = Batch.of(sd, lines, call=SIZE, size=2)
    assert batch.parts() == [(0, 2), (1,)]
    found = drawn(batch)
    for i, line in enumerate(lines):
        eager = sd(line.subject, seed=line.seeds[0], batch=1, **{**SIZE, **line.call})
        assert (found[i].tensor - eager.tensor).abs().max() < 1e-5 * eager.tensor.abs().max().clamp_min(1)
        assert found[i].nfe == eager.nfe
    again = sd.redraw(found[2], weak=weak)
    assert torch.equal(again.tensor, found[2].tensor)
    orders = [replace(sd.order(line.subject, **{**SIZE, **line.call}), weaker=weak.model) for line in lines]
    with pytest.raises(fs.InvalidInput, match="guided away from one weaker model: draw them apart"):
        draw_in_slots(sd.model, orders, 2)


def test_a_weaker_model_that_several_lines_name_by_its_path_is_one(models: Models, tmp_path: Path) -> None:
    sd, path = models("sd").native, other_unet(models("sd").folder, tmp_path / "weak")
    auto = {"guidance": {"method": "autoguidance"}, "weak": str(path), **SIZE}
    lines = [PromptLine("lion", (i,), {"sampler": name, "steps": 2, **auto}) for i, name in enumerate(["ddim", "heun"])]
    batch = Batch.of(sd, lines, size=2)
    assert batch.parts() == [(0, 1)]
    assert len({one.digest for one in drawn(batch).values()}) == 2


def files(folder: Path) -> dict[str, bytes]:
    left_out = {"timings.jsonl", "job.lock"}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in left_out}


@pytest.mark.parametrize("moves", [0, 1, 9, 18, 24])
def test_a_killed_batch_goes_on_to_the_same_files(models: Models, tmp_path: Path, moves: int) -> None:
    folder, prompts = models("sd").folder, written(tmp_path, "sd")
    batch = Batch.of(fs.load(folder), read_prompts(prompts), size=SLOTS)
    draw_batch(batch, tmp_path / "whole")
    arguments = [str(folder), str(prompts), str(tmp_path / "killed"), str(SLOTS), str(moves)]
    script = Path(__file__).with_name("killed.py")
    run = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, check=False)
    assert run.returncode == -signal.SIGKILL, run.stderr.decode()[-2000:]
    report = draw_batch(batch, tmp_path / "killed")
    assert report.drawn == (24 if moves < 18 else 8)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")
    assert draw_batch(batch, tmp_path / "killed").drawn == 0


def test_its_pictures_say_how_each_was_drawn_and_are_drawn_again(models: Models, tmp_path: Path) -> None:
    sd = models("sd").native
    batch = Batch.of(sd, read_prompts(written(tmp_path, "sd")), size=SLOTS)
    draw_batch(batch, tmp_path / "out")
    manifest = [json.loads(text) for text in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    assert [line["index"] for line in manifest] == [i for part in batch.parts() for i in part]
    for line in sorted(manifest, key=lambda line: line["index"]):
        asked = lines_of("sd")[line["index"]]
        drawing = Drawing.of(line["drawing"])
        assert drawing == batch.drawing(line["index"])
        assert (drawing.sampling.sampler, drawing.sampling.steps) == (asked["sampler"], asked["steps"])
        assert (drawing.prompts, drawing.negative) == ((asked["prompt"],), (asked.get("negative"),))
        assert (line["made"]["driver"], line["made"]["batch"]) == ("slots", SLOTS)
    for index in (2, 3, 4, 13):
        line = next(line for line in manifest if line["index"] == index)
        stamp = read(tmp_path / "out" / line["file"])
        again = fs.load(models("sd").folder).redraw(stamp)
        assert again.digest == stamp.made.pixels
        assert again.made == stamp.made.but(pixels=None)


def test_a_batch_of_one_kind_says_so_even_where_each_line_says_it(models: Models, tmp_path: Path) -> None:
    sd = models("sd").native
    line = {"sampler": "ddim", "steps": 2, "guidance": {"scale": 3.0, "method": "apg"}, **SIZE}
    lines = [PromptLine(words, (i,), dict(line)) for i, words in enumerate(WORDS)]
    batch = Batch.of(sd, lines, size=2)
    assert (batch.driver, batch.parts()) == ("eager", [(0, 1), (2, 3)])
    found = drawn(batch)
    together = sd(WORDS, seed=range(4), batch=2, **line)
    assert all(torch.equal(found[i].tensor[0], together.tensor[i]) for i in range(4))


def test_sizes_that_differ_are_drawn_apart(models: Models) -> None:
    sd = models("sd").native
    lines = [PromptLine("lion", (i,), {"height": 16 + 16 * (i % 2), "width": 16, "steps": 2}) for i in range(4)]
    batch = Batch.of(sd, lines, size=2)
    assert batch.parts() == [(0, 2), (1, 3)]
    assert [tuple(one.tensor.shape[-2:]) for _, one in sorted(drawn(batch).items())] == [(16, 16), (32, 16)] * 2
