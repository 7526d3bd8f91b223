"""Students that know of their rows, as models: by a policy, and told where each row leads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from click.testing import CliRunner

import fewstep as fs
from fewstep import InvalidInput
from fewstep.cli.app import app
from fewstep.denoise.row import RowFacts
from fewstep.distillation import Adapter, Endpoint, Policy, Regression, Settings, Source, distill, forecast
from fewstep.distillation.methods.regression import noise_of
from fewstep.training import STUDENT, Batch, Draws, Loss, Needs, Phase, Roles, one_stage, schedule_of
from fewstep.training.levels import at_times, target_of
from models import tiny
from models.tiny_diffusers import write

FEW = Settings(steps=6, batch=8, rate=5e-3, state_every=3, log_every=3)
SOURCE = Source(count=32, steps=4, held_out=16, guidance=2.0)
WORDS = Source(subjects=("red circle", "blue square"), count=16, held_out=16, steps=3, guidance=3.0)
POLICY = Policy(rows=3, guesses=4, visits=2)


@dataclass(frozen=True)
class Jumps:
    """From noise to anywhere on the straight line to what the teacher makes of it: the student is told where."""

    name: ClassVar[str] = "jumps"
    needs: ClassVar[Needs] = Needs(teacher=True, pairs=True)
    row_facts: ClassVar[RowFacts] = RowFacts(second_time=True)

    def phase(self, step: int, steps: int) -> Phase:
        return one_stage(step, steps)

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        role, noise = roles[STUDENT], noise_of(batch)
        schedule = schedule_of(role.network)
        here = at_times(schedule, schedule.t_max, batch.data)
        there = at_times(schedule, schedule.t_clean + (schedule.t_max - 1) * draws.spread("end"), batch.data)
        x, end = here.sigma * noise, there.alpha * batch.data + 0.9 * there.sigma * noise
        found = role.answering(batch).estimate(x, here.towards(there))[0]
        yield Loss(STUDENT, (found - target_of(x, end, here, there)).square().mean())

    def plan(self, network: fs.Network, rows: int | None = None) -> fs.Plan:
        return fs.compile("ddim", schedule=schedule_of(network), steps=2 if rows is None else rows)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("teacher") / "tiny.safetensors")


@pytest.fixture(scope="module")
def policy(teacher: Path) -> Path:
    """A student by a policy."""
    return distill(teacher, POLICY, teacher.parent / "policy", settings=FEW, source=SOURCE).path


@pytest.fixture(scope="module")
def told(teacher: Path) -> Path:
    """A student that is told where its rows lead."""
    settings = replace(FEW, steps=60, batch=16)
    return distill(teacher, Jumps(), teacher.parent / "told", settings=settings, source=SOURCE).path


def test_a_policy_student_is_a_model_that_draws_by_its_own_plan(policy: Path, teacher: Path) -> None:
    pipe = fs.load(policy)
    assert pipe.model.rows == RowFacts(guesses=4)
    images = pipe([0, 2, 1], seed=5)
    assert images.nfe == 3
    assert images.drawing.sampling.plan == POLICY.plan(fs.load(teacher).model.denoiser())
    assert torch.equal(pipe([0, 2, 1], seed=5).tensor, images.tensor)
    assert torch.allclose(pipe([2], seed=6).tensor, images.tensor[1:2], atol=1e-5)
    same = pipe([0, 2, 1], seed=5, sampler="ddim", steps=3, grid="trailing")
    assert torch.equal(same.tensor, images.tensor)


def test_before_training_it_draws_as_its_teacher(teacher: Path, tmp_path: Path) -> None:
    settings = replace(FEW, steps=1, rate=1e-12)
    found = distill(teacher, POLICY, tmp_path / "run", settings=settings, source=replace(SOURCE, guidance=1.0))
    own = fs.load(teacher)([1, 2], seed=3, guidance=1.0, sampler="ddim", steps=3, grid="trailing")
    assert torch.allclose(found.pipe([1, 2], seed=3).tensor, own.tensor, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"sampler": "dpmpp-2m", "steps": 5},
            "student gives 4 guesses for a row, and goes there in one step of DDIM: dp",
        ),
        ({"sampler": "euler-a", "steps": 3}, "euler-a has memory, stages or noise"),
        (
            {"sampler": "ddim", "steps": 5},
            "it learned for the rows of its own plan alone, and the plan has one from 999",
        ),
        ({"sampler": "ddim", "steps": 3, "grid": "karras"}, "leave sampler, steps, grid and strength out"),
        ({"steps": 2}, "which decides steps"),
        ({"guidance": 2.0}, "with guidance 2 inside"),
    ],
)
def test_a_policy_student_refuses_rows_that_it_did_not_learn(policy: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        fs.load(policy)([1], **asked)


def test_a_plan_that_begins_late_on_its_own_times_is_taken(policy: Path) -> None:
    pipe = fs.load(policy)
    times, shape = pipe.plan().recipe.times, (2, 1, 4, 4)
    late, first = (fs.compile("ddim", schedule=pipe.model.schedule, times=part) for part in (times[1:], times[:2]))
    start, denoiser = torch.randn(shape, generator=torch.Generator().manual_seed(0)), pipe.denoiser([1, 2])
    parts = fs.sample(late, denoiser, start=fs.sample(first, denoiser, start=start))
    assert torch.allclose(parts, fs.sample(pipe.plan(), denoiser, start=start), atol=1e-5)
    assert pipe([1, 2], sampler=late, seed=1).nfe == 2


def test_slots_draw_with_it_as_alone(policy: Path) -> None:
    from fewstep.pipeline.slots import draw_in_slots

    pipe = fs.load(policy)
    orders = [pipe.order([label], seed=label) for label in (0, 1, 2)]
    for label, images in enumerate(draw_in_slots(pipe.model, orders, 2)):
        assert torch.allclose(images.tensor, pipe([label], seed=label).tensor, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 8])
def test_a_told_student_draws_in_any_number_of_rows(told: Path, rows: int) -> None:
    pipe = fs.load(told)
    assert pipe.model.rows == RowFacts(second_time=True)
    assert pipe([1], seed=2).nfe == 2
    by_euler = pipe([1, 2], seed=2, sampler="euler", steps=rows)
    assert by_euler.nfe == rows
    assert torch.allclose(pipe([1, 2], seed=2, sampler="ddim", steps=rows).tensor, by_euler.tensor, atol=1e-4)


def test_what_it_is_told_acts(told: Path) -> None:
    pipe = fs.load(told)
    network, x = pipe.model.denoiser().given({"label": torch.tensor([1])}), torch.ones(1, 1, 4, 4)
    here, *ends = (at_times(network.schedule, t, x) for t in (999.0, 500.0, 100.0))  # type: ignore[arg-type]
    one, other = (network.output(x, here.towards(end)) for end in ends)
    assert float((one - other).abs().max()) > 1e-3


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "heun", "euler-a", "unipc-3"])
def test_a_told_student_refuses_samplers_with_memory_stages_and_noise(told: Path, sampler: str) -> None:
    with pytest.raises(InvalidInput, match=f"student is told where each row leads, .*: {sampler} has memory, stages"):
        fs.load(told)([1], sampler=sampler, steps=5)


def test_they_are_neither_taught_from_nor_tuned_nor_measured_by_samplers(
    policy: Path, told: Path, tmp_path: Path
) -> None:
    for student in (policy, told):
        for method in (Regression(), Endpoint(), POLICY):
            with pytest.raises(InvalidInput, match="and was distilled already: give the model that it was made from"):
                distill(student, method, tmp_path / "run", settings=FEW, source=replace(SOURCE, guidance=1.0))
        with pytest.raises(InvalidInput, match="tune its teacher"):
            fs.tune(fs.load(student), rows=3)
        with pytest.raises(InvalidInput, match="drawn with by DDIM alone, and samplers are measured here: measure its"):
            fs.bench(fs.load(student))
    assert not (tmp_path / "run").exists()


def test_the_command_line_draws_with_them_and_says_what_it_refuses(policy: Path, tmp_path: Path) -> None:
    def said(*arguments: str) -> Any:
        return CliRunner().invoke(app, [*arguments], catch_exceptions=False)

    drawn = said("generate", str(policy), "--labels", "1,2", "--output", str(tmp_path / "one.png"))
    assert drawn.exit_code == 0
    assert "NFE 3" in drawn.output
    for arguments, words in (
        (
            ["generate", str(policy), "--labels", "1", "--sampler", "unipc", "--steps", "4"],
            "gives 4 guesses for a row,",
        ),
        (["doctor", str(policy)], "gives 4 guesses for a row, and readings are tested of networks that do not"),
    ):
        refused = said(*arguments)
        assert refused.exit_code == 2
        assert words in " ".join(refused.output.split())


def test_a_policy_is_forecast_without_drawing(teacher: Path, tmp_path: Path) -> None:
    found = forecast(teacher, POLICY, tmp_path / "run", settings=FEW, source=SOURCE)
    assert found.memory.activations > 0
    assert not (tmp_path / "run").exists()


class Killed(BaseException):
    """Not an Exception, as a kill is none."""


def test_a_run_goes_on_to_the_same_student(teacher: Path, tmp_path: Path) -> None:
    whole = distill(teacher, POLICY, tmp_path / "whole", settings=FEW, source=SOURCE)

    def killed(*_: Any) -> None:
        raise Killed

    watch = fs.distillation.Watch(training=killed)
    with pytest.raises(Killed):
        distill(teacher, POLICY, tmp_path / "other", settings=FEW, source=SOURCE, watch=watch)
    again = distill(teacher, POLICY, tmp_path / "other", settings=FEW, source=SOURCE)
    assert again.pipe.model.digest == whole.pipe.model.digest


@pytest.mark.parametrize("rank", [None, 2])
def test_in_the_format_of_diffusers_the_network_says_what_it_knows(rank: int | None, tmp_path: Path) -> None:
    write("sd", tmp_path / "sd")
    adapter = None if rank is None else Adapter(rank=rank)
    settings = replace(FEW, steps=3, adapter=adapter)
    found = distill(tmp_path / "sd", POLICY, tmp_path / "run", settings=settings, source=WORDS)
    config = json.loads((found.path / "unet/config.json").read_text())
    assert (config["out_channels"], config["guesses"], config["second_time"]) == (16, 4, False)
    assert found.lora is None
    pipe = fs.load(found.path)
    assert (pipe.model.rows, pipe.model.sizes.channels) == (RowFacts(guesses=4), 4)
    assert pipe("red circle", seed=1).nfe == 3
    with pytest.raises(InvalidInput, match="it learned for the rows of its own plan alone"):
        pipe("red circle", sampler="ddim", steps=5)


def test_a_told_student_in_the_format_of_diffusers_does_not_take_the_time_for_a_scale(tmp_path: Path) -> None:
    write("sd", tmp_path / "sd")
    found = distill(tmp_path / "sd", Jumps(), tmp_path / "run", settings=replace(FEW, steps=3), source=WORDS)
    config = json.loads((found.path / "unet/config.json").read_text())
    assert (config["time_cond_proj_dim"], config["second_time"]) == (256, True)
    pipe = fs.load(found.path)
    assert not pipe.model.conditioner.distilled
    assert pipe("red circle", seed=1, sampler="ddim", steps=4).nfe == 4
    assert pipe.model.recommended["guidance"]["scale"] == 1.0


def test_a_network_of_another_kind_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    write("sd3", tmp_path / "sd3")
    with pytest.raises(
        InvalidInput, match=r"gives 4 guesses for a row is a UNet2DConditionModel or fewstep's own, and"
    ):
        distill(tmp_path / "sd3", POLICY, tmp_path / "run", settings=FEW, source=WORDS)
    assert not (tmp_path / "run").exists()
