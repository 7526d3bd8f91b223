"""Training a low-rank change: it alone moves, is averaged and kept, over weights that teacher and student share."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import fewstep as fs
from fewstep import InvalidInput, schedules
from fewstep.models import lowrank
from fewstep.training import STUDENT, TEACHER, Adapter, Progress, Run, student_of, train
from fewstep.training.adapter import changes_of, taken_off
from models import tiny
from models.tiny_diffusers import sd_unet

from .linear import QUICK, Fit, Line, Samples
from .test_loop import Killed


def run(folder: Path, adapter: Adapter, method: Fit | None = None, network: Any = None) -> Run:
    teacher = fs.Network(network or Line(), schedules.flow(), "sample")
    roles = student_of(teacher, succeeds=True, adapter=adapter, seed=3)
    return Run(method or Fit(), roles, Samples(), replace(QUICK, adapter=adapter), folder)


def test_teacher_and_student_are_one_copy_and_the_student_begins_as_the_teacher() -> None:
    unet: Any = tiny.network()
    roles = student_of(fs.Network(unet, schedules.linear()), adapter=Adapter(rank=2))
    teacher, student = roles[TEACHER].module, roles[STUDENT].module
    theirs = {weight.data_ptr() for weight in teacher.parameters()}
    more = [weight for weight in student.parameters() if weight.data_ptr() not in theirs]
    assert teacher is unet
    assert len(theirs) == len(list(student.parameters())) - len(more)
    assert {id(weight) for weight in more} == {id(weight) for weight in roles[STUDENT].weights.values()}
    assert all(weight.requires_grad for weight in more)
    assert not any(weight.requires_grad for weight in teacher.parameters())
    x, t, label = torch.randn(2, 1, 4, 4), torch.tensor([10.0, 500.0]), torch.tensor([0, 1])
    assert torch.equal(student.eval()(x, t, label), teacher(x, t, label))


def test_the_change_alone_is_trained_averaged_and_kept(tmp_path: Path) -> None:
    line = Line()
    before = copy.deepcopy(line.state_dict())
    module = train(run(tmp_path, Adapter(rank=2), network=line))
    assert all(torch.equal(tensor, before[name]) for name, tensor in line.state_dict().items())
    change = changes_of(module).low_rank["line"].product()
    assert change.norm() > 0.3
    assert torch.linalg.matrix_rank(change, rtol=1e-6) == 2
    state = load_file(next((tmp_path / "states").glob("step-*24/state.safetensors")))
    of_weights = {name for name in state if ".weight." in name or ".average." in name}
    assert of_weights
    assert all(".lora_" in name for name in of_weights)
    assert all(2 in tensor.shape for name, tensor in state.items() if ".optimiser." in name and tensor.ndim == 2)


def test_a_change_of_full_rank_learns_what_all_weights_learn(tmp_path: Path) -> None:
    settings = replace(QUICK, steps=150, state_every=150, adapter=Adapter(rank=3))
    one = run(tmp_path, Adapter(rank=3))
    module: Any = train(one._replace(settings=settings))
    change = changes_of(module).low_rank["line"].product()
    assert torch.allclose(torch.eye(3) + change.float(), -1.6 * torch.eye(3), atol=0.25)


@pytest.mark.parametrize("stages", [1, 3])
def test_a_run_that_is_stopped_goes_on_to_the_same_bits(tmp_path: Path, stages: int) -> None:
    """Also where the averaged student, a change as well, has become the teacher."""
    whole = train(run(tmp_path / "whole", Adapter(rank=2), Fit(stages)))
    left = 4

    def watch(now: Progress) -> None:
        nonlocal left
        left -= 1
        if left >= 0 and now.losses:
            raise Killed

    module = None
    for _ in range(6):
        try:
            module = train(run(tmp_path / "killed", Adapter(rank=2), Fit(stages)), watch)
            break
        except Killed:
            continue
    assert module is not None
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), module.parameters(), strict=True))


def test_alpha_scales_the_change_and_lies_in_it_afterwards() -> None:
    roles = student_of(fs.Network(Line(), schedules.flow(), "sample"), adapter=Adapter(rank=2, alpha=6))
    module: Any = roles[STUDENT].module.eval()
    with torch.no_grad():
        module.line.lora_B["student"].weight.fill_(1.0)
    x, t = torch.randn(4, 3), torch.zeros(4)
    expected = module(x, t)
    down = module.line.lora_A["student"].weight.detach()
    change = changes_of(module)
    assert torch.allclose(change.low_rank["line"].product(), 3.0 * torch.ones(3, 2).double() @ down.double())
    plain: Any = copy.deepcopy(taken_off(module))
    assert isinstance(plain.line, nn.Linear)
    lowrank.add(plain, change)
    assert torch.allclose(plain(x, t), expected, atol=1e-6)


def test_the_first_change_depends_on_the_seed_alone() -> None:
    teacher = fs.Network(Line(), schedules.flow(), "sample")

    def first(seed: int) -> Tensor:
        module: Any = student_of(teacher, adapter=Adapter(rank=2), seed=seed)[STUDENT].module
        return module.line.lora_A["student"].weight.detach()

    torch.manual_seed(1)
    one = first(3)
    before = torch.get_rng_state()
    assert torch.equal(one, first(3))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(one, first(4))


def test_targets_are_the_layers_that_are_named() -> None:
    torch.manual_seed(0)
    unet, own = sd_unet(), tiny.network()
    every, linear, attention = (set(Adapter(targets=name).layers(unet)) for name in ("all", "linear", "attention"))
    assert attention < linear < every
    assert {"conv_in", "time_embedding.linear_1", "up_blocks.0.upsamplers.0.conv"} < every
    assert {"time_embedding.linear_2", "down_blocks.0.resnets.0.time_emb_proj"} < linear - attention
    assert {name.split(".")[-2 if name.endswith(".0") else -1] for name in attention} == {
        "to_q",
        "to_k",
        "to_v",
        "to_out",
    }
    assert Adapter(targets="attention").layers(own) == ["attention.query_key_value", "attention.out"]
    assert all(not isinstance(own.get_submodule(name), nn.Conv2d) for name in Adapter(targets="linear").layers(own))
    with pytest.raises(InvalidInput, match="a Line has no layers for a LoRA with targets 'attention': use 'all'"):
        Adapter(targets="attention").layers(Line())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "whole number from 1 to 1024, got 0"),
        ({"rank": True}, "got True"),
        ({"alpha": 0.0}, "number above 0, got 0.0"),
        ({"alpha": float("inf")}, "number above 0, got inf"),
        ({"alpha": True}, "number above 0, got True"),
        ({"targets": "atention"}, "did you mean 'attention'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        Adapter(**options)


def test_settings_and_student_have_the_same_adapter(tmp_path: Path) -> None:
    one = run(tmp_path, Adapter(rank=2))
    with pytest.raises(InvalidInput, match="the student was made with one: give the same"):
        train(one._replace(settings=QUICK))
