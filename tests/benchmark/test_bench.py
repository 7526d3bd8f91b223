"""Rows of a tiny model: what is in them, that nothing is measured twice, and that bad input leaves nothing behind."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import fewstep as fs
from fewstep.benchmark import Loading, Pictures, Reporter, Stage, Sweep, batches, bench, read_results, work
from fewstep.benchmark.folder import opened
from fewstep.benchmark.subject import FIRST, Subject
from fewstep.benchmark.sweep import candidates_of
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import TunedFor
from fewstep.tuning import Sizes, TuningSettings
from fewstep.tuning.table import plan_of, table_of
from models.tiny import broken, write

from .tiny import PLANS, SWEEP, measure, solved_once

FEW = Sweep(samplers=("ddim", "unipc-2"), grids=("karras",), steps=(2, 4))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    solved_once(monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "tiny.safetensors")


def test_a_row_has_the_error_to_the_converged_solution_and_what_the_pictures_show(model: Path, tmp_path: Path) -> None:
    found = measure(model, tmp_path / "out", FEW)
    assert [(one.plan.sampler, one.plan.steps, one.plan.rows, one.nfe) for one in found.results] == [
        ("ddim", 2, 2, 4.0),
        ("ddim", 4, 4, 8.0),
        ("unipc-2", 2, 2, 4.0),
        ("unipc-2", 4, 4, 8.0),
    ]
    problem = Subject(str(model), Pictures(batch=4)).problem(2.0)
    fine = fs.compile("deis-3", schedule=problem.schedule, steps=400, grid="quadratic")
    exact = problem.solve(fine, range(FIRST, FIRST + 6))
    for one in found.results:
        plan = fs.compile(one.plan.sampler, schedule=problem.schedule, steps=one.plan.steps, grid="karras")
        own = problem.solve(plan, range(FIRST, FIRST + 6))
        error = float((own - exact).double().square().mean().sqrt())
        assert one.figures["error"].value == pytest.approx(error, rel=0.02)
        assert one.figures["error"].low < error < one.figures["error"].high
        share = 1 - error**2 / float(exact.double().var(dim=0).mean())
        assert one.figures["quality"].value == pytest.approx(share, abs=2e-3)
        assert one.figures["psnr"].value == pytest.approx(20 * torch.tensor(2 / error).log10().item(), abs=0.2)
        assert {"diversity", "saturation"} <= set(one.figures)
        assert one.images == 6
        assert one.lost == 0
        assert 0 < one.seconds.low <= one.seconds.value <= one.seconds.high
        assert one.plan.digest == plan.digest
        assert one.guidance == 2.0
    assert "no features" in found.missing["distance"]
    kept = [one.to_json() for one in read_results(tmp_path / "out" / "runs.jsonl")]
    assert sorted(kept, key=str) == sorted((one.to_json() for one in found.results), key=str)


def test_nothing_is_measured_twice_and_a_larger_sweep_adds_only_what_is_new(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure(model, tmp_path / "out", FEW)
    drawn: list[int] = []
    original = batches.draw
    monkeypatch.setattr(
        batches, "draw", lambda problem, plan, *more: drawn.append(len(plan.rows)) or original(problem, plan, *more)
    )
    monkeypatch.setattr("fewstep.benchmark.work.converge", None)
    again = measure(model, tmp_path / "out", FEW)
    assert drawn == []
    assert len(again.results) == 4
    more = measure(model, tmp_path / "out", Sweep(samplers=("ddim", "unipc-2"), grids=("karras",), steps=(2, 3, 4)))
    assert {n for n in drawn if n > 1} == {3}  # 1: an evaluation for the estimate
    assert len(more.results) == 6
    assert len(read_results(tmp_path / "out" / "runs.jsonl")) == 6


SOLVING = work.FINDING * 2 / 6 + work.SOLVING
"""Rows of each of 6 images that the converged solutions are counted as, found on 2 of them."""


def test_progress_counts_the_converged_solutions_and_ends_with_all_that_there_is(model: Path, tmp_path: Path) -> None:
    told: list[Stage] = []
    measure(model, tmp_path / "out", FEW, seed=11, reporter=Reporter(watch=told.append))
    solving = [now for now in told if now.words.startswith("converged")]
    assert {round(now.of, 6) for now in told} == {round(SOLVING + 2 + 4 + 2 + 4, 6)}
    assert solving[0].done == 0
    assert [now.done for now in told] == sorted(now.done for now in told)
    assert solving[-1].done > 0.4 * SOLVING
    assert told[len(solving)].done == pytest.approx(SOLVING)


def test_plans_that_are_drawn_in_turns_are_written_one_by_one(model: Path, tmp_path: Path) -> None:
    last: list[str] = []

    def interrupt(now: Stage) -> None:
        last.append(now.words)
        if not now.words.startswith("converged") and last.count(now.words) == 3 and len(set(last[-4:])) == 4:
            file = tmp_path / "out" / "runs.jsonl"
            if file.exists() and len(read_results(file)) == 2:
                raise KeyboardInterrupt

    found = measure(model, tmp_path / "out", FEW, reporter=Reporter(watch=interrupt))
    assert (found.stopped, found.left, len(found.results)) == ("interrupted", 2, 2)


def test_bench_and_tune_give_one_figure_for_one_plan(model: Path, tmp_path: Path) -> None:
    pipe = fs.load(str(model))
    settings = TuningSettings(samplers=["ddim"], sizes=replace(Sizes.of(32), held_out=64), iterations=0, seconds=1e6)
    certificate = fs.tune(pipe, rows=4, guidance=2.0, settings=settings).certificate
    compared = {f"{one.sampler} on {one.grid}": one for one in certificate.compared if one.images == 64}
    sampler, grid = next(name for name in compared if compared[name].kind != "learned").split(" on ")
    sweep = Sweep(samplers=(sampler,), grids=(grid,), rows=(4,), guidance=(2.0,))
    measured = measure(model, tmp_path / "out", sweep, count=64, batch=16).results[0]
    own = compared[f"{sampler} on {grid}"]
    # On the same noise; each solves for itself. A few paths of these random weights fork, and they decide the rmse.
    assert measured.figures["typical"].value == pytest.approx(own.typical.value, rel=0.02)
    assert measured.figures["error"].value == pytest.approx(own.rmse.value, rel=0.05)
    assert measured.nfe == own.nfe


def ticking(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A clock that goes on by so many seconds each time somebody looks."""
    clock = SimpleNamespace(perf_counter=itertools.count(0, step).__next__)
    for module in (batches, work):
        monkeypatch.setattr(module, "time", clock)


def test_ctrl_c_and_the_end_of_the_time_keep_what_is_done(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(now: Stage) -> None:
        if now.done > SOLVING + 13.5:  # in the third plan
            raise KeyboardInterrupt

    sweep = Sweep(samplers=("ddim",), grids=("trailing", "karras"), steps=(7, 8))
    ticking(monkeypatch, 5)  # a batch takes 5 seconds, so that no two plans are drawn in turns
    found = measure(model, tmp_path / "out", sweep, reporter=Reporter(watch=interrupt))
    assert (found.stopped, found.left) == ("interrupted", 2)
    assert len(found.results) == len(read_results(tmp_path / "out" / "runs.jsonl")) == 2
    late = measure(model, tmp_path / "out", sweep, seconds=1.0)
    assert (late.stopped, late.left) == ("out of time", 1)
    assert measure(model, tmp_path / "out", sweep, seconds=1e9).left == 0


def test_what_it_will_cost_is_said_before_anything_is_drawn(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def refuse(estimate: object) -> None:
        told.append(estimate)
        raise InvalidInput("too much")

    ticking(monkeypatch, 1)
    with pytest.raises(InvalidInput, match="too much"):
        measure(model, tmp_path / "out", FEW, reporter=Reporter(announce=refuse))
    assert told[0].left == 4
    # a second for a row of a batch of 4; 3 batches are timed of each plan
    assert told[0].row == {(2.0, "float32"): 0.25}
    assert told[0].seconds == (2 + 4 + 2 + 4) * (6 + 4) * 0.25 + SOLVING * 6 * 0.25
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("images", [2, 5])
def test_very_few_images_have_a_diversity_too(model: Path, tmp_path: Path, images: int) -> None:
    sweep = Sweep(samplers=("ddim",), grids=("karras",), steps=(2,))
    (one,) = measure(model, tmp_path / "out", sweep, count=images).results  # a bootstrap of 2 often draws one twice
    assert set(one.figures) == {"error", "typical", "quality", "psnr", "saturation", "diversity"}
    found = one.figures["diversity"]
    assert 0 < found.low <= found.value <= found.high


def test_guidance_has_its_own_solution_and_costs_two_evaluations(model: Path, tmp_path: Path) -> None:
    found = measure(
        model, tmp_path / "out", Sweep(samplers=("ddim",), grids=("karras",), steps=(3,), guidance=(1.0, 4.0))
    )
    assert [(one.guidance, one.nfe) for one in found.results] == [(1.0, 3.0), (4.0, 6.0)]
    assert len({one.figures["error"].reference for one in found.results}) == 2
    assert len(list((tmp_path / "out" / "converged").iterdir())) == 2


def test_rows_of_lower_precision_are_compared_with_the_same_solution(model: Path, tmp_path: Path) -> None:
    sweep = Sweep(samplers=("unipc-2",), grids=("karras",), steps=(12,), precisions=("float32", "bfloat16"))
    exact, rounded = measure(model, tmp_path / "out", sweep).results
    assert rounded.precision == "bfloat16"
    assert exact.figures["error"].reference == rounded.figures["error"].reference
    moved = abs(rounded.figures["error"].value - exact.figures["error"].value)
    assert 1e-6 < moved < 0.02


def test_equal_cost_gives_samplers_of_two_stages_half_the_steps(model: Path, tmp_path: Path) -> None:
    found = measure(model, tmp_path / "out", Sweep(samplers=("ddim", "heun"), grids=("karras",), rows=(5,)))
    assert [(one.plan.sampler, one.plan.steps, one.plan.rows) for one in found.results] == [
        ("ddim", 5, 5),
        ("heun", 3, 5),
    ]


def test_equal_evaluations_count_guidance(model: Path, tmp_path: Path) -> None:
    sweep = Sweep(samplers=("ddim", "heun"), grids=("karras",), nfe=(6,), guidance=(1.0, 2.0))
    found = measure(model, tmp_path / "out", sweep)
    assert [(one.guidance, one.plan.sampler, one.plan.rows, one.nfe) for one in found.results] == [
        (1.0, "ddim", 6, 6.0),
        (1.0, "heun", 5, 5.0),
        (2.0, "ddim", 3, 6.0),
        (2.0, "heun", 2, 4.0),
    ]
    with pytest.raises(InvalidInput, match="ddim on karras has no plan of at most NFE 1, of which a row takes 2"):
        measure(model, tmp_path / "new", Sweep(samplers=("ddim",), grids=("karras",), nfe=(1,)))


def test_samplers_that_draw_noise_have_no_error_and_keep_the_rest(model: Path, tmp_path: Path) -> None:
    (one,) = measure(model, tmp_path / "out", Sweep(samplers=("ddpm",), grids=("trailing",), steps=(3,))).results
    assert set(one.figures) == {"diversity", "saturation"}
    assert not (tmp_path / "out" / "converged").exists()


def test_lost_images_are_counted_and_left_out(tmp_path: Path) -> None:
    path = broken(tmp_path / "broken.safetensors")
    sweep = Sweep(samplers=("ddpm",), grids=("trailing",), steps=(3,), guidance=(1.0,))
    (one,) = measure(path, tmp_path / "out", sweep).results
    assert (one.images, one.lost) == (6, 2)
    assert one.figures["saturation"].n == 4
    (tmp_path / "there").mkdir()
    for output in ("other", "there"):
        with pytest.raises(InvalidInput, match=r"not all finite|no finite images"):
            measure(path, tmp_path / output, FEW)
    assert not (tmp_path / "other").exists()
    assert list((tmp_path / "there").iterdir()) == []
    with pytest.raises(InvalidInput, match=r"not all finite|no finite images"):
        measure(path, tmp_path / "out", FEW)
    assert len(read_results(tmp_path / "out" / "runs.jsonl")) == 1


def test_a_tuned_plan_is_compared_kept_and_refused_for_another_model(model: Path, tmp_path: Path) -> None:
    pipe = fs.load(model)
    for name, digest in (("own", pipe.model.digest), ("other", "0" * 16)):
        table = table_of(fs.compile("unipc-2", schedule=pipe.model.schedule, steps=3))
        assert table is not None
        plan_of(table, pipe.model.schedule, TunedFor(digest)).save(tmp_path / f"{name}.json")
    none = {"samplers": (), "grids": ()}
    found = measure(model, tmp_path / "out", Sweep(**none, plans=(tmp_path / "own.json",)))
    (one,) = found.results
    assert (one.plan.kind, one.plan.sampler, one.plan.rows) == ("tuned", "learned", 3)
    assert fs.Plan.load(found.folder / str(one.plan.file)) == fs.Plan.load(tmp_path / "own.json")
    with pytest.raises(InvalidInput, match="tuned for a model with digest 0000000000000000"):
        measure(model, tmp_path / "new", Sweep(**none, plans=(tmp_path / "other.json",)))
    assert not (tmp_path / "new").exists()
    assert (
        len(measure(model, tmp_path / "new", Sweep(**none, plans=(tmp_path / "other.json",), force=True)).results) == 1
    )


def test_a_plan_with_guidance_by_row_is_measured_as_it_is_drawn(model: Path, tmp_path: Path) -> None:
    pipe = fs.load(model)
    table = table_of(fs.compile("unipc-2", schedule=pipe.model.schedule, steps=4))
    assert table is not None
    files = []
    for name, factors in (("all", [1.0, 1.2, 0.9, 0.8]), ("some", [0.0, 1.2, 0.9, 0.0]), ("alike", None)):
        plan_of(table, pipe.model.schedule, TunedFor(pipe.model.digest), factors).save(tmp_path / f"{name}.json")
        files.append(tmp_path / f"{name}.json")
    sweep = Sweep(samplers=(), grids=(), guidance=(1.0, 4.0), plans=tuple(files))
    found = {(one.plan.digest, one.guidance): one for one in measure(model, tmp_path / "out", sweep).results}
    digests = [fs.Plan.load(file).digest for file in files]
    assert [found[digest, 4.0].nfe for digest in digests] == [8.0, 6.0, 8.0]
    assert [found[digest, 1.0].nfe for digest in digests] == [4.0, 4.0, 4.0]
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
    with pytest.raises(InvalidInput, match=rf"damaged .* Delete {file}, and it is solved again"):
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
        ({"rows": (1001,)}, {}, "rows must be whole numbers from 1 to 1000, got 1001"),
        ({"nfe": (4,), "steps": (4,)}, {}, "give one of them"),
        ({"precisions": ("int8",)}, {}, "precision must be one of 'float32', 'bfloat16', 'float16'"),
        ({"guidance": ()}, {}, "there is nothing to measure"),
        ({"samplers": ()}, {}, "there is nothing to measure: give samplers"),
        ({}, {"count": 1}, "images must be a whole number from 2"),
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
    pipe = fs.load(lambda x, t: 0.5 * x, spec=fs.NetworkSpec(fs.schedules.linear(), "epsilon", (1, 4, 4)))
    few = {"samplers": ("ddim",), "grids": ("karras",), "steps": (2,)}
    (one,) = bench(pipe, Sweep(**few), output=tmp_path / "out", pictures=Pictures(4, 4)).results
    assert (one.guidance, one.nfe) == (None, 2.0)
    with pytest.raises(InvalidInput, match="there is nothing to guide"):
        bench(pipe, Sweep(**few, guidance=(3.0,)), output=tmp_path / "new")
    with pytest.raises(InvalidInput, match="a loaded model cannot be measured in bfloat16 too"):
        bench(pipe, Sweep(**few, precisions=("bfloat16",)), output=tmp_path / "new")
    with pytest.raises(InvalidInput, match=r"this model is loaded already: leave out variant and allow_pickle"):
        bench(pipe, Sweep(**few), loading=Loading(variant="fp16", allow_pickle=True), output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_precision_that_the_device_cannot_do_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = batches.draw, itertools.count()

    def refusing(*given):
        if next(calls) >= 4:  # those before are of float32
            raise RuntimeError("not implemented for 'Half'")
        return original(*given)

    monkeypatch.setattr(batches, "draw", refusing)
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


def test_the_sweep_of_the_tests_has_the_plans_it_says(model: Path) -> None:
    assert len(candidates_of(SWEEP, Subject(str(model)).target(1.0)).plans) == PLANS
