"""Rows of a tiny model: what is in them, that nothing is measured twice, and that bad input leaves nothing behind."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep.benchmark import Progress, Sweep, bench, read_runs
from fewstep.benchmark.folder import opened
from fewstep.benchmark.subject import FIRST, Subject
from fewstep.core.errors import InvalidInput
from fewstep.denoise.factors import FACTORS
from fewstep.tuning.table import plan_of, table_of
from pipeline.tiny import broken, write

from .tiny import ROWS, measure, solved_once

FEW = Sweep(samplers=("ddim", "unipc-2"), grids=("karras",), steps=(2, 4))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    solved_once(monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny.safetensors")


def test_a_row_has_the_error_to_the_converged_solution_and_what_the_pictures_show(model: Path, tmp_path: Path) -> None:
    found = measure(model, tmp_path / "out", FEW)
    assert [(run.sampler, run.steps, run.nfe, run.evaluations) for run in found.runs] == [
        ("ddim", 2, 2, 4.0),
        ("ddim", 4, 4, 8.0),
        ("unipc-2", 2, 2, 4.0),
        ("unipc-2", 4, 4, 8.0),
    ]
    problem = Subject(str(model), batch=4).problem(2.0)
    fine = fs.compile("deis-3", schedule=problem.schedule, steps=400, grid="quadratic")
    exact = problem.solve(fine, range(FIRST, FIRST + 6))
    for run in found.runs:
        plan = fs.compile(run.sampler, schedule=problem.schedule, steps=run.steps, grid="karras")
        own = problem.solve(plan, range(FIRST, FIRST + 6))
        error = float((own - exact).double().square().mean().sqrt())
        assert run.figures["error"].value == pytest.approx(error, rel=0.02)
        assert run.figures["error"].low < error < run.figures["error"].high
        share = 1 - error**2 / float(exact.double().var(dim=0).mean())
        assert run.figures["quality"].value == pytest.approx(share, abs=2e-3)
        assert run.figures["psnr"].value == pytest.approx(20 * torch.tensor(2 / error).log10().item(), abs=0.2)
        assert {"diversity", "saturation"} <= set(run.figures)
        assert run.images == 6
        assert run.lost == 0
        assert 0 < run.seconds.low <= run.seconds.value <= run.seconds.high
        assert run.plan == plan.digest
        assert run.guidance == 2.0
    assert "no features" in found.missing["distance"]
    kept = [run.to_json() for run in read_runs(tmp_path / "out" / "runs.jsonl")]
    assert sorted(kept, key=str) == sorted((run.to_json() for run in found.runs), key=str)


def test_nothing_is_measured_twice_and_a_larger_sweep_adds_only_what_is_new(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewstep.benchmark import draws

    measure(model, tmp_path / "out", FEW)
    drawn: list[int] = []
    original = draws.draw
    monkeypatch.setattr(
        draws, "draw", lambda problem, plan, *more: drawn.append(plan.nfe) or original(problem, plan, *more)
    )
    monkeypatch.setattr("fewstep.benchmark.runner.converge", None)
    again = measure(model, tmp_path / "out", FEW)
    assert drawn == []
    assert len(again.runs) == 4
    more = measure(model, tmp_path / "out", Sweep(samplers=("ddim", "unipc-2"), grids=("karras",), steps=(2, 3, 4)))
    assert {n for n in drawn if n > 1} == {3}  # 1: an evaluation for the estimate
    assert len(more.runs) == 6
    assert len(read_runs(tmp_path / "out" / "runs.jsonl")) == 6


def test_ctrl_c_and_the_end_of_the_time_keep_what_is_done(model: Path, tmp_path: Path) -> None:
    def interrupt(now: Progress) -> None:
        if now.done > 13.5:  # in the third row
            raise KeyboardInterrupt

    sweep = Sweep(samplers=("ddim",), grids=("trailing", "karras"), steps=(7, 8))
    # A clock by which a batch takes 5 seconds, so that no two rows are drawn in turns.
    slow: dict[str, Any] = {"clock": itertools.count(0, 5).__next__}
    found = measure(model, tmp_path / "out", sweep, watch=interrupt, **slow)
    assert (found.stopped, found.left) == ("interrupted", 2)
    assert len(found.runs) == len(read_runs(tmp_path / "out" / "runs.jsonl")) == 2
    late = measure(model, tmp_path / "out", sweep, seconds=1.0, **slow)
    assert (late.stopped, late.left) == ("out of time", 1)
    slow["seconds"] = 1e9
    assert measure(model, tmp_path / "out", sweep, **slow).left == 0


def test_what_it_will_cost_is_said_before_anything_is_drawn(model: Path, tmp_path: Path) -> None:
    told = []

    def refuse(estimate: object) -> None:
        told.append(estimate)
        raise InvalidInput("too much")

    with pytest.raises(InvalidInput, match="too much"):
        measure(model, tmp_path / "out", FEW, announce=refuse, clock=itertools.count().__next__)
    assert told[0].rows == 4
    # a second for an evaluation of a batch of 4; 3 batches are timed of each row
    assert told[0].evaluation == {(2.0, "float32"): 0.25}
    assert told[0].seconds == (2 + 4 + 2 + 4) * (6 + 4) * 0.25 + (216 + 96) * 6 * 0.25
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("images", [2, 5])
def test_very_few_images_have_a_diversity_too(model: Path, tmp_path: Path, images: int) -> None:
    sweep = Sweep(samplers=("ddim",), grids=("karras",), steps=(2,))
    (run,) = measure(model, tmp_path / "out", sweep, images=images).runs  # a bootstrap of 2 often draws one twice
    assert set(run.figures) == {"error", "typical", "quality", "psnr", "saturation", "diversity"}
    found = run.figures["diversity"]
    assert 0 < found.low <= found.value <= found.high


def test_guidance_has_its_own_solution_and_costs_two_evaluations(model: Path, tmp_path: Path) -> None:
    found = measure(
        model, tmp_path / "out", Sweep(samplers=("ddim",), grids=("karras",), steps=(3,), guidance=(1.0, 4.0))
    )
    assert [(run.guidance, run.evaluations) for run in found.runs] == [(1.0, 3.0), (4.0, 6.0)]
    assert len({run.figures["error"].reference for run in found.runs}) == 2
    assert len(list((tmp_path / "out" / "converged").iterdir())) == 2


def test_rows_of_lower_precision_are_compared_with_the_same_solution(model: Path, tmp_path: Path) -> None:
    sweep = Sweep(samplers=("unipc-2",), grids=("karras",), steps=(12,), precisions=("float32", "bfloat16"))
    exact, rounded = measure(model, tmp_path / "out", sweep).runs
    assert rounded.precision == "bfloat16"
    assert exact.figures["error"].reference == rounded.figures["error"].reference
    moved = abs(rounded.figures["error"].value - exact.figures["error"].value)
    assert 1e-6 < moved < 0.02


def test_equal_cost_gives_samplers_of_two_stages_half_the_steps(model: Path, tmp_path: Path) -> None:
    found = measure(model, tmp_path / "out", Sweep(samplers=("ddim", "heun"), grids=("karras",), nfe=(5,)))
    assert [(run.sampler, run.steps, run.nfe) for run in found.runs] == [("ddim", 5, 5), ("heun", 3, 5)]


def test_samplers_that_draw_noise_have_no_error_and_keep_the_rest(model: Path, tmp_path: Path) -> None:
    (run,) = measure(model, tmp_path / "out", Sweep(samplers=("ddpm",), grids=("trailing",), steps=(3,))).runs
    assert set(run.figures) == {"diversity", "saturation"}
    assert not (tmp_path / "out" / "converged").exists()


def test_lost_images_are_counted_and_left_out(tmp_path: Path) -> None:
    path = broken(tmp_path / "broken.safetensors")
    sweep = Sweep(samplers=("ddpm",), grids=("trailing",), steps=(3,), guidance=(1.0,))
    (run,) = measure(path, tmp_path / "out", sweep).runs
    assert (run.images, run.lost) == (6, 2)
    assert run.figures["saturation"].n == 4
    (tmp_path / "there").mkdir()
    for output in ("other", "there"):
        with pytest.raises(InvalidInput, match=r"not all finite|no finite images"):
            measure(path, tmp_path / output, FEW)
    assert not (tmp_path / "other").exists()
    assert list((tmp_path / "there").iterdir()) == []
    with pytest.raises(InvalidInput, match=r"not all finite|no finite images"):
        measure(path, tmp_path / "out", FEW)
    assert len(read_runs(tmp_path / "out" / "runs.jsonl")) == 1


def test_a_tuned_plan_is_compared_kept_and_refused_for_another_model(model: Path, tmp_path: Path) -> None:
    pipe = fs.load(model)
    for name, digest in (("own", pipe.digest), ("other", "0" * 16)):
        table = table_of(fs.compile("unipc-2", schedule=pipe.schedule, steps=3))
        assert table is not None
        plan_of(table, pipe.schedule, {"model": digest}).save(tmp_path / f"{name}.json")
    none = {"samplers": (), "grids": ()}
    found = measure(model, tmp_path / "out", Sweep(**none, plans=(tmp_path / "own.json",)))
    (run,) = found.runs
    assert (run.kind, run.sampler, run.nfe) == ("tuned", "learned", 3)
    assert fs.Plan.load(found.folder / str(run.plan_file)) == fs.Plan.load(tmp_path / "own.json")
    with pytest.raises(InvalidInput, match="tuned for a model with digest 0000000000000000"):
        measure(model, tmp_path / "new", Sweep(**none, plans=(tmp_path / "other.json",)))
    assert not (tmp_path / "new").exists()
    assert len(measure(model, tmp_path / "new", Sweep(**none, plans=(tmp_path / "other.json",), force=True)).runs) == 1


def test_a_plan_with_guidance_by_row_is_measured_as_it_is_drawn(model: Path, tmp_path: Path) -> None:
    pipe = fs.load(model)
    table = table_of(fs.compile("unipc-2", schedule=pipe.schedule, steps=4))
    assert table is not None
    files = []
    for name, factors in (("all", [1.0, 1.2, 0.9, 0.8]), ("some", [0.0, 1.2, 0.9, 0.0]), ("alike", None)):
        facts = {"model": pipe.digest} | ({} if factors is None else {FACTORS: factors})
        plan_of(table, pipe.schedule, facts).save(tmp_path / f"{name}.json")
        files.append(tmp_path / f"{name}.json")
    sweep = Sweep(samplers=(), grids=(), guidance=(1.0, 4.0), plans=tuple(files))
    found = {(run.plan, run.guidance): run for run in measure(model, tmp_path / "out", sweep).runs}
    digests = [fs.Plan.load(file).digest for file in files]
    assert [found[digest, 4.0].evaluations for digest in digests] == [8.0, 6.0, 8.0]
    assert [found[digest, 1.0].evaluations for digest in digests] == [4.0, 4.0, 4.0]
    errors = [found[digest, 4.0].figures["error"].value for digest in digests]
    assert len(set(errors)) == 3
    assert len({found[digest, 1.0].figures["error"].value for digest in digests}) == 1  # nothing is guided there


def test_a_folder_of_another_model_and_one_in_use_are_refused(model: Path, tmp_path: Path) -> None:
    measure(model, tmp_path / "out", FEW)
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    other = write(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(
        InvalidInput, match=r"holds measurements of a model with digest .* another folder with --output"
    ):
        measure(other, tmp_path / "out", FEW)
    with opened(tmp_path / "out", Subject(str(model)).model), pytest.raises(InvalidInput, match="another process"):
        measure(model, tmp_path / "out", FEW)
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="is a file"):
        measure(model, tmp_path / "file", FEW)


def test_a_converged_solution_that_was_changed_is_refused(model: Path, tmp_path: Path) -> None:
    measure(model, tmp_path / "out", FEW)
    (file,) = (tmp_path / "out" / "converged").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        InvalidInput, match=rf"was changed since it was written.* Delete {file}, and it is solved again"
    ):
        measure(model, tmp_path / "out", Sweep(samplers=("ddim",), grids=("karras",), steps=(7,)))
    file.write_bytes(bytes(content[:100]))
    with pytest.raises(InvalidInput, match=rf"damaged one .* Delete {file}, and it is solved again"):
        measure(model, tmp_path / "out", Sweep(samplers=("ddim",), grids=("karras",), steps=(7,)))
    file.unlink()
    assert measure(model, tmp_path / "out", Sweep(samplers=("ddim",), grids=("karras",), steps=(7,))).left == 0


@pytest.mark.parametrize(
    ("sweep", "more", "words"),
    [
        ({"samplers": ("dddim",)}, {}, "unknown sampler 'dddim': did you mean 'ddim'"),
        ({"grids": ("karas",)}, {}, "unknown grid 'karas': did you mean 'karras'"),
        ({"steps": (0,)}, {}, "steps must be whole numbers from 1 to 1000, got 0"),
        ({"nfe": (1001,)}, {}, "nfe must be whole numbers from 1 to 1000, got 1001"),
        ({"nfe": (4,), "steps": (4,)}, {}, "give one of them"),
        ({"precisions": ("int8",)}, {}, "precision must be one of 'float32', 'bfloat16', 'float16'"),
        ({"guidance": ()}, {}, "there is nothing to measure"),
        ({"samplers": ()}, {}, "there is nothing to measure: give samplers"),
        ({}, {"images": 1}, "images must be a whole number from 2"),
        ({}, {"seconds": 0}, "seconds must be above 0"),
        ({}, {"seed": -1}, "seed must be a whole number from 0"),
        ({}, {"batch": 0}, "batch must be a whole number of at least 1"),
        ({}, {"prompts": "p.txt"}, "--prompts is for models that take prompts"),
        ({}, {"clip": "somewhere"}, "--clip scores pictures under prompts"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    model: Path, tmp_path: Path, sweep: dict[str, object], more: dict[str, object], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        measure(model, tmp_path / "out", Sweep(**sweep), **more)
    assert not (tmp_path / "out").exists()


def test_a_model_without_condition_has_no_guidance(tmp_path: Path) -> None:
    pipe = fs.load(
        lambda x, t: 0.5 * x, schedule=fs.schedules.linear(), prediction="epsilon", sample_shape=(1, 4, 4), classes=0
    )
    few = {"samplers": ("ddim",), "grids": ("karras",), "steps": (2,)}
    (run,) = bench(pipe, Sweep(**few), output=tmp_path / "out", images=4, batch=4).runs
    assert (run.guidance, run.evaluations) == (None, 2.0)
    with pytest.raises(InvalidInput, match="there is nothing to guide"):
        bench(pipe, Sweep(**few, guidance=(3.0,)), output=tmp_path / "new")
    with pytest.raises(InvalidInput, match="a loaded model cannot be measured in bfloat16 too"):
        bench(pipe, Sweep(**few, precisions=("bfloat16",)), output=tmp_path / "new")
    with pytest.raises(InvalidInput, match=r"variant and allow_pickle: .* this one is loaded: leave it out"):
        bench(pipe, Sweep(**few), variant="fp16", allow_pickle=True, output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_precision_that_the_device_cannot_do_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewstep.benchmark import draws

    original, calls = draws.draw, itertools.count()

    def refusing(*given):
        if next(calls) >= 4:  # those before are of float32
            raise RuntimeError("not implemented for 'Half'")
        return original(*given)

    monkeypatch.setattr(draws, "draw", refusing)
    sweep = Sweep(samplers=("ddim",), grids=("karras",), steps=(2,), precisions=("float32", "float16"))
    with pytest.raises(InvalidInput, match=r"cpu cannot run tiny in float16 .*leave it out"):
        measure(model, tmp_path / "out", sweep)
    assert not (tmp_path / "out").exists()


def test_the_commands_that_measured_are_kept_once(model: Path, tmp_path: Path) -> None:
    for _ in range(2):
        measure(model, tmp_path / "out", FEW)
    document = json.loads((tmp_path / "out" / "bench.json").read_text())
    (command,) = document["commands"]
    assert command.startswith(f"fewstep bench {model} --samplers ddim,unipc-2 --grids karras --steps 2,4 --guidance 2 ")
    assert command.endswith("--images 6 --batch 4 --seed 0")


def test_the_sweep_of_the_tests_has_the_rows_it_says(model: Path) -> None:
    from fewstep.benchmark.sweep import entries_of

    from .tiny import SWEEP

    pipe = fs.load(model)
    assert len(entries_of(SWEEP, pipe.schedule, pipe.name, pipe.digest).plans) == ROWS
