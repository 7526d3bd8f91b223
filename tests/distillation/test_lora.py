"""Students that are a LoRA: an ordinary model, and a file that diffusers puts on another fine-tune."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep import InvalidInput
from fewstep.adapters.diffusers import PlanScheduler
from fewstep.distillation import (
    Adapter,
    DistributionMatching,
    LatentConsistency,
    Progressive,
    Regression,
    Settings,
    Source,
    distill,
)
from fewstep.distillation.pictures.pairs import blank
from fewstep.distillation.work import Work
from fewstep.models import lowrank
from fewstep.training import TEACHER, Roles, train
from fewstep.training import roles as role_module
from models import tiny
from models.by_hand import other_unet
from models.test_families import PROMPTS, SIZE, apart, noise
from models.tiny_diffusers import write

QUICK = Settings(steps=6, batch=8, rate=1e-2, state_every=3, log_every=3)
LOW = replace(QUICK, adapter=Adapter(rank=2))
SOURCE = Source(count=16, steps=3, held_out=16, guidance=2.0)


@pytest.mark.parametrize("method", [Regression(rows=2), Progressive(begin=4, end=1)])
def test_a_student_of_classes_has_its_change_merged(method: Any, tmp_path: Path) -> None:
    """Also where the student becomes the teacher, whose first round is guided."""
    teacher = tiny.write(tmp_path / "tiny.safetensors")
    found = distill(teacher, method, tmp_path / "run", settings=LOW, source=SOURCE)
    before: Any = fs.load(teacher).model.module
    after: Any = fs.load(found.path).model.module
    changes = {n: a - b for (n, a), b in zip(after.named_parameters(), before.parameters(), strict=True)}
    layers = {name: change.flatten(1) for name, change in changes.items() if change.ndim > 1 and "label" not in name}
    ranks = {name: int(torch.linalg.matrix_rank(change, rtol=1e-3)) for name, change in layers.items()}
    assert ranks == {name: min(2, *change.shape) for name, change in layers.items()}
    assert not any(change.any() for name, change in changes.items() if change.ndim == 1)
    assert not (tmp_path / "run/lora").exists()
    own = found.report.lines[0].error
    again = distill(teacher, method, tmp_path / "run", settings=LOW, source=SOURCE)
    assert again.report.lines[0].error == own


def test_other_ranks_are_another_run(tmp_path: Path) -> None:
    teacher = tiny.write(tmp_path / "tiny.safetensors")
    short = replace(LOW, steps=1)
    distill(teacher, Regression(), tmp_path / "run", settings=short, source=SOURCE)
    for other, said in (
        (Adapter(rank=3), r"settings\.adapter\.rank is 2 there and 3 here"),
        (None, r"adapter\.rank is 2 there and None"),
    ):
        with pytest.raises(InvalidInput, match=said):
            distill(teacher, Regression(), tmp_path / "run", settings=replace(short, adapter=other), source=SOURCE)


def copies_of(roles: Roles) -> float:
    """How often the roles hold the teacher's weights, by the bytes of all tensors that stay."""
    found = {}
    for role in roles.values():
        tensors = [*role.module.parameters(), *role.module.buffers(), *role.network.module.parameters()]  # type: ignore[union-attr]
        found |= {one.data_ptr(): one.nbytes for one in tensors if not one.requires_grad}
    return sum(found.values()) / sum(weight.nbytes for weight in roles[TEACHER].module.parameters())


@pytest.mark.parametrize("shared", [True, False])
def test_all_networks_of_distribution_matching_hold_one_copy_of_the_weights_that_stay(
    shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Student, fake score, discriminator and teacher, before and after steps of all of them; else there are three."""
    if not shared:
        twin = role_module.twin
        monkeypatch.setattr(role_module, "twin", lambda network, shared=False: twin(network))
    teacher = tiny.write(tmp_path / "tiny.safetensors")
    work = Work.of(teacher, DistributionMatching(ratio=2, adversary=0.1), tmp_path, LOW, SOURCE, None, None)
    data = blank(work.teacher, 16)
    roles = work.roles(data)
    assert roles[TEACHER].module is work.teacher.pipe.model.module
    assert sorted(roles) == ["critic", "fake", "student", "teacher"]
    assert copies_of(roles) == (1 if shared else 3)
    train(work.run(roles, data))
    assert copies_of(roles) == (1 if shared else 3)


@pytest.mark.parametrize("settings", [LOW, replace(LOW, adapter=None)])
def test_the_average_of_a_student_shares_what_stays_and_nothing_else(settings: Settings, tmp_path: Path) -> None:
    teacher = tiny.write(tmp_path / "tiny.safetensors")
    work = Work.of(teacher, LatentConsistency(grid_steps=4, rows=2), tmp_path, settings, SOURCE, None, None)
    data = blank(work.teacher, 16)
    roles = work.roles(data)
    student, target = roles["student"].weights, roles["target"].weights
    assert student.keys() == target.keys()
    assert all(torch.equal(student[name], target[name]) for name in student)
    assert not {one.data_ptr() for one in student.values()} & {one.data_ptr() for one in target.values()}
    if settings.adapter is not None:
        assert copies_of(roles) == 1 + added(target) / added(dict(roles["teacher"].module.named_parameters()))
    train(work.run(roles, data))
    assert not all(torch.equal(student[name], target[name]) for name in student)


def added(weights: Mapping[str, torch.Tensor]) -> int:
    """Bytes of some weights."""
    return sum(weight.nbytes for weight in weights.values())


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over a tiny Stable Diffusion, which lies beside it."""
    folder = tmp_path_factory.mktemp("lora")
    write("sd", folder / "sd")
    source = Source(subjects=("red circle", "blue square"), count=16, held_out=16, steps=3, guidance=3.0)
    settings = replace(QUICK, adapter=Adapter(rank=2, alpha=4))
    distill(folder / "sd", Regression(rows=2), folder / "run", settings=settings, source=source)
    return folder


def drawn_by(own: Any, plan: fs.Plan, guidance: float = 1.0) -> torch.Tensor:
    """Latents of a pipeline of diffusers by a plan."""
    own.scheduler = PlanScheduler.from_plan(plan, own.scheduler.config)
    own.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": len(plan.rows), "output_type": "latent", "guidance_scale": guidance}
    return own(PROMPTS, latents=noise((2, 4, 8, 12)), **settings, **SIZE).images


def drawn(pipe: Any, plan: fs.Plan) -> torch.Tensor:
    start = noise((2, *pipe.state_shape(**SIZE)))
    return fs.sample(plan, pipe.denoiser(PROMPTS, guidance=1.0, **SIZE), start=start)


def test_diffusers_draws_with_the_file_what_the_student_draws(student: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = fs.load(student / "run/student")
    plan = pipe.plan()
    own = StableDiffusionPipeline.from_pretrained(student / "sd", safety_checker=None)
    before = drawn_by(own, plan)
    own.load_lora_weights(student / "run/lora")
    expected = drawn_by(own, plan)
    assert apart(drawn(pipe, plan), expected) < 1e-5
    assert apart(before, expected) > 1e-3


def test_the_file_is_put_on_another_fine_tune_of_the_same_base(student: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    other = other_unet(student / "sd", tmp_path / "other")
    path = student / "run/lora" / lowrank.LORA_FILE
    plan = fs.Plan.load(path.parent / "plan.json")
    assert plan == fs.load(student / "run/student").plan()
    own = StableDiffusionPipeline.from_pretrained(other, safety_checker=None)
    own.load_lora_weights(path.parent)
    assert apart(drawn(fs.load(other, lora=path), plan), drawn_by(own, plan)) < 1e-5
