"""Batches of drawings: which images are drawn together, what tells two apart, and folders that a crash left behind."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.batch import Batch, PromptLine, draw_batch
from fewstep.batch.manifest import Manifest
from fewstep.core.errors import InvalidInput
from fewstep.drawing import Drawing, read
from fewstep.pipeline import Pipeline
from models.tiny_diffusers import Twins


def line(subject: Any, seed: int = 0, **call: Any) -> PromptLine:
    return PromptLine(subject, (seed,), call)


def batch(pipe: Pipeline, lines: Sequence[PromptLine], size: int | None = 2, scale: int = 1, **call: Any) -> Batch:
    return Batch.of(pipe, lines, call={"steps": 1, **call}, size=size, scale=scale)


def test_images_with_one_kind_of_negative_are_drawn_together(pipe: Pipeline) -> None:
    made = batch(pipe, [line(0), line(1, negative=0), line(2), line(0, 1), line(1, negative=2), line(0, 5)])
    assert (made.driver, made.parts()) == ("eager", [(0, 2), (3, 5), (1, 4)])


def test_images_that_differ_in_guidance_or_sampler_go_through_slots(pipe: Pipeline) -> None:
    made = batch(pipe, [line(0), line(1, guidance=3), line(2), line(1, negative=2), line(0, sampler="ddim")], size=1)
    assert (made.driver, made.parts()) == ("slots", [(0, 1, 2, 3), (4,)])
    assert [made.drawing(i).guidance.scale for i in range(5)] == [2.0, 3.0, 2.0, 2.0, 2.0]
    assert made.drawing(4).sampling.sampler == "ddim"


def test_everything_that_decides_an_image_is_in_the_identity(pipe: Pipeline) -> None:
    lines = [line(0), line(1)]
    own = batch(pipe, lines)
    others = [
        batch(pipe, [line(0), line(1, 1)]),
        batch(pipe, [line(0), line(2)]),
        batch(pipe, [line(0), line(1, guidance=3)]),
        batch(pipe, [line(0), line(1, negative=2)]),
        batch(pipe, [line(1), line(0)]),
        replace(own, size=1),
        replace(own, scale=2),
        batch(pipe, lines, steps=2),
        batch(pipe, lines, sampler="ddim"),
        batch(pipe, lines, guidance=3),
        batch(pipe, lines, guidance={"rescale": 0.5}),
        batch(pipe, lines, guidance={"interval": (0.1, 2.0)}),
        batch(pipe, lines, estimate={"clip": True}),
        batch(pipe, lines, decode={"sliced": True}),
    ]
    texts = {json.dumps(one.identity()) for one in [own, *others]}
    assert len(texts) == 1 + len(others)
    assert batch(pipe, lines).identity() == own.identity()


@pytest.mark.parametrize(
    ("lines", "more", "message"),
    [
        ([], {}, "1 to 1,000,000 images, got 0"),
        ([line(0)], {"size": 0}, "batch must be"),
        ([line(0)], {"size": 1025}, "batch must be"),
        ([line(0)], {"scale": 5000}, "use a lower one"),
        ([line(0)], {"height": 8}, "tiny makes only images of 4 x 4 pixels"),
        ([line(0)], {"hight": 8}, "unknown argument 'hight': did you mean 'height'"),
        ([line(3)], {}, "no label 3"),
        ([line(0), line(3)], {}, "no label 3"),
        ([line(0), line(True)], {}, r"labels\.0 has to be a valid integer, got True"),
        ([line("lion")], {}, "labels"),
        ([line(0), line("lion")], {}, "labels"),
        ([line(0, -1)], {}, "a seed must be"),
        ([line(0, 2**64)], {}, "a seed must be"),
        ([line(0), line(0, negative=1.5)], {}, "negative"),
        ([line(0), line(0, negative=[1])], {}, "negative"),
        ([line(0, negative=1, guidance=1)], {}, "negative"),
        ([line(0, guidance=float("nan"))], {}, r"guidance\.scale has to be a finite number"),
        ([line(0)], {"guidance": {"rescale": 2}}, "rescale"),
        ([line(0), line(1, guidance={"method": "pag"})], {}, "UNet has none"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(
    pipe: Pipeline, lines: list[PromptLine], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        batch(pipe, lines, **more)


def test_a_folder_without_its_last_files_gets_them(pipe: Pipeline, tmp_path: Path) -> None:
    made = batch(pipe, [line(i % 3, i) for i in range(5)])
    seen: list[int] = []
    report = draw_batch(made, tmp_path / "a", on_batch=lambda done: seen.append(done.images))
    assert (report.drawn, report.nfe, seen) == (5, 2, [2, 4, 5])
    draw_batch(made, tmp_path / "b")
    for name in ("000004-label1-seed4.png", "000003-label0-seed3.png"):
        (tmp_path / "b" / name).unlink()
    (tmp_path / "b/.job.json.0123456789ab.part").write_text("torn")
    assert draw_batch(made, tmp_path / "b").drawn == 3
    names = [{p.name: p.read_bytes() for p in (tmp_path / f).iterdir() if p.name != "timings.jsonl"} for f in "ab"]
    assert names[0] == names[1]


def test_a_picture_that_comes_out_otherwise_is_not_mixed_in(pipe: Pipeline, tmp_path: Path) -> None:
    made = batch(pipe, [line(0), line(1)])
    draw_batch(made, tmp_path / "a")
    (tmp_path / "a/000001-label1-seed0.png").unlink()
    module: Any = pipe.model.module
    with torch.no_grad():
        next(iter(module.parameters())).add_(0.5)
    with pytest.raises(InvalidInput, match="drawn again it differs"):
        draw_batch(made, tmp_path / "a")
    assert not (tmp_path / "a/000001-label1-seed0.png").exists()


def test_a_file_of_a_batch_is_the_picture_that_a_call_draws(pipe: Pipeline, tmp_path: Path) -> None:
    made = batch(pipe, [line(0, 3), line(2, 9)], steps=3, scale=2)
    draw_batch(made, tmp_path / "a")
    stamp = read(tmp_path / "a/000001-label2-seed9.png")
    drawn = pipe([0, 2], seed=[3, 9], steps=3, batch=2)
    assert torch.equal(pipe.redraw(stamp).tensor, drawn.tensor[1:])
    manifest = [json.loads(text) for text in (tmp_path / "a/manifest.jsonl").read_text().splitlines()]
    assert [entry["file"] for entry in manifest] == ["000000-label0-seed3.png", "000001-label2-seed9.png"]
    assert Drawing.of(manifest[1]["drawing"]) == made.drawing(1) == next(iter([*stamp.drawing.each][1:]))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('{"index": 0}\n{"index": 2}\n{"index": 1}\n', 3),
        ('{"index": 0}\n{"index": 2}\n{"index"', 2),
        ('{"index": 0}\n', 0),
        ('{"index": 0}\n{"index": 2}', 0),
        ("", 0),
    ],
)
def test_a_manifest_is_cut_to_whole_batches(tmp_path: Path, text: str, kept: int) -> None:
    path = tmp_path / "m"
    path.write_text(text)
    manifest = Manifest(path, [(0, 2), (1,)])
    assert len(manifest.lines) == kept
    assert path.read_text() == "".join(text.splitlines(True)[:kept])
    for batch in ((0, 2), (1,))[manifest.done :]:
        manifest.append([{"index": i} for i in batch])
    assert path.read_text() == '{"index": 0}\n{"index": 2}\n{"index": 1}\n'


@pytest.mark.parametrize("text", ['{"index": 1}\n', "x\n", "[]\n", '{"index": 0}\n{"index": 2}\n{"index": 1}\n{}\n'])
def test_a_manifest_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m").write_text(text)
    with pytest.raises(InvalidInput, match="damaged or not of this job"):
        Manifest(tmp_path / "m", [(0, 2), (1,)])
    assert (tmp_path / "m").read_text() == text


def test_images_that_take_too_much_memory_together_are_refused_before_the_work(models: Callable[..., Twins]) -> None:
    lines = [PromptLine("a red circle")]
    huge = {"height": 8192, "width": 8192}
    assert Batch.of(models("sd").native, lines, range(4), huge, size=4).size == 4
    with pytest.raises(InvalidInput, match=r"6 images of .* take more than 4 GiB: draw fewer at once"):
        Batch.of(models("sd").native, lines, range(6), huge, size=8)
