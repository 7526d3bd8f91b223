"""Jobs: which images are drawn together, what tells two jobs apart, and folders that a crash left behind."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fewstep.core.errors import InvalidInput
from fewstep.pipeline import Item, Job, Pipeline, draw_job
from fewstep.pipeline.manifest import Manifest


def job(pipe: Any, items: list[Item], **more: Any) -> Job:
    return Job(pipe, tuple(items), pipe.plan(steps=1), **{"batch": 2, **more})


def test_images_with_one_guidance_and_negative_are_drawn_together(pipe: Pipeline) -> None:
    made = job(pipe, [Item(0), Item(1, guidance=3), Item(2), Item(0, 1), Item(1, negative=2), Item(0, guidance=3)])
    assert made.batches() == [(0, 2), (3,), (1, 5), (4,)]
    assert [item.guidance for item in made.items] == [2.0, 3, 2.0, 2.0, 2.0, 3]


def test_everything_that_decides_an_image_is_in_the_identity(pipe: Pipeline) -> None:
    own = job(pipe, [Item(0), Item(1)])
    others = [
        job(pipe, [Item(0), Item(1, seed=1)]),
        job(pipe, [Item(0), Item(2)]),
        job(pipe, [Item(0), Item(1, guidance=3)]),
        job(pipe, [Item(0), Item(1, negative=2)]),
        job(pipe, [Item(1), Item(0)]),
        replace(own, batch=1),
        replace(own, scale=2),
        replace(own, plan=pipe.plan(steps=2)),
        *(
            job(pipe, [Item(0), Item(1)], settings=s)
            for s in ({"clip": True}, {"rescale": 0.5}, {"interval": (0.1, 2)})
        ),
    ]
    texts = {json.dumps(one.identity()) for one in [own, *others]}
    assert len(texts) == 1 + len(others)
    assert job(pipe, [Item(0), Item(1)]).identity() == own.identity()


@pytest.mark.parametrize(
    ("items", "more", "message"),
    [
        ([], {}, "1 to 1,000,000 images, got 0"),
        ([Item(0)], {"batch": 0}, "batch must be"),
        ([Item(0)], {"settings": {"height": 8}}, "no setting 'height'"),
        ([Item(3)], {}, "no label 3"),
        ([Item("lion")], {}, "'lion' is words"),
        ([Item(0, seed=-1)], {}, "a seed must be"),
        ([Item(0, negative=1, guidance=1)], {}, "negative"),
        ([Item(0, guidance=float("nan"))], {}, "guidance must be a finite number"),
        ([Item(0)], {"settings": {"rescale": 2}}, "rescale"),
    ],
)
def test_what_cannot_be_drawn_is_refused_at_once(pipe: Pipeline, items: list, more: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        job(pipe, items, **more)


def test_a_folder_without_its_last_files_gets_them(pipe: Pipeline, tmp_path: Path) -> None:
    made = job(pipe, [Item(i % 3, i) for i in range(5)])
    seen = []
    report = draw_job(made, tmp_path / "a", on_batch=lambda done: seen.append(done.images))
    assert (report.drawn, report.nfe, seen) == (5, 2, [2, 4, 5])
    draw_job(made, tmp_path / "b")
    for name in ("000004-label1-seed4.png", "000003-label0-seed3.png"):
        (tmp_path / "b" / name).unlink()
    (tmp_path / "b/.job.json.0123456789ab.part").write_text("torn")
    assert draw_job(made, tmp_path / "b").drawn == 3
    names = [{p.name: p.read_bytes() for p in (tmp_path / f).iterdir() if p.name != "timings.jsonl"} for f in "ab"]
    assert names[0] == names[1]


def test_a_picture_that_comes_out_otherwise_is_not_mixed_in(pipe: Pipeline, tmp_path: Path) -> None:
    made = job(pipe, [Item(0), Item(1)])
    draw_job(made, tmp_path / "a")
    (tmp_path / "a/000001-label1-seed0.png").unlink()
    with torch.no_grad():
        next(iter(pipe.network.parameters())).add_(0.5)  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match="drawn again it differs"):
        draw_job(made, tmp_path / "a")
    assert not (tmp_path / "a/000001-label1-seed0.png").exists()


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
