"""Networks that know of their rows begin as what they were made from, and their files say what they know."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import InvalidInput, schedules, zoo
from fewstep.denoise.embedded import embedded_guidance
from fewstep.denoise.row import RowFacts
from fewstep.models.families import SD, call_sd
from fewstep.training import STUDENT, Adapter, student_of
from fewstep.training.rows import with_rows
from fewstep.training.scale import takes_scale, with_scale
from models import tiny
from models.tiny_diffusers import enliven, sd_unet

SCHEDULE = schedules.scaled_linear()
KINDS = ["own", "UNet2DConditionModel"]


def alive(kind: str) -> tuple[fs.Network, dict[str, Tensor], tuple[int, ...]]:
    """A network that knows nothing of its rows, a condition of a batch of two, and the shape of its states."""
    if kind == "own":
        return fs.Network(tiny.network(), schedules.linear()), {"label": torch.tensor([0, 2])}, (2, 1, 4, 4)
    unet = sd_unet()
    enliven(unet, 1)
    draw = torch.Generator().manual_seed(0)
    condition = {"text": torch.randn(2, 5, 32, generator=draw)}
    return fs.Network(partial(call_sd, unet), SCHEDULE), condition, (2, 4, 8, 8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_is_told_a_second_time_begins_as_the_one_that_is_not(kind: str) -> None:
    network, condition, shape = alive(kind)
    other = with_rows(network, RowFacts(second_time=True))
    assert (other.rows, network.rows) == (RowFacts(second_time=True), RowFacts())
    assert not takes_scale(other)
    x, t = torch.randn(shape, generator=torch.Generator().manual_seed(2)), torch.tensor([10.0, 700.0])
    with torch.no_grad():
        expected = network.network(x, t, **condition)
        for r in (torch.tensor([-1.0, 300.0]), t):
            assert torch.equal(other.network(x, t, **condition, r=r), expected)
        assert other.module is not None
        own = {name for name, _ in network.module.named_parameters()}  # type: ignore[union-attr]
        (name,) = {name for name, _ in other.module.named_parameters()} - own
        assert not other.module.get_parameter(name).any()
        other.module.get_parameter(name).copy_(torch.randn(other.module.get_parameter(name).shape))
        found = [other.network(x, t, **condition, r=torch.tensor([-1.0, each])) for each in (300.0, 301.0)]
    assert torch.equal(found[0][0], found[1][0])
    assert not torch.allclose(found[0][1], found[1][1], atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_of_several_guesses_begins_as_the_one_of_one(kind: str) -> None:
    network, condition, shape = alive(kind)
    other = with_rows(network, RowFacts(guesses=3)).given(condition)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    plan = fs.compile("ddim", schedule=other.schedule, steps=2)  # type: ignore[arg-type]
    with torch.no_grad():
        found = fs.sample(plan, other, noise=x)
    torch.testing.assert_close(found, fs.sample(plan, network.given(condition), noise=x), rtol=0, atol=1e-4)
    assert other.module is not None
    count = sum(p.numel() for p in other.module.parameters()) - sum(p.numel() for p in network.module.parameters())  # type: ignore[union-attr]
    last = other.module.get_submodule("leave" if kind == "own" else "conv_out")
    assert count == sum(p.numel() for p in last.parameters()) * 2 // 3
    assert all(not torch.equal(p, q) or p.data_ptr() != q.data_ptr() for p, q in
               zip(other.module.parameters(), network.module.parameters(), strict=False))  # type: ignore[union-attr]  # fmt: skip


@pytest.mark.parametrize("rows", [RowFacts(second_time=True), RowFacts(guesses=4), RowFacts(True, 2)])
def test_a_file_of_fewstep_says_what_its_network_knows(rows: RowFacts, tmp_path: Path) -> None:
    before = zoo.load(tiny.write(tmp_path / "tiny.safetensors"))
    network = with_rows(fs.Network(before.network, before.spec.schedule, before.spec.prediction), rows)
    module: Any = network.module
    spec = fs.zoo.Spec(module.config, before.spec.prediction, before.spec.schedule, before.spec.value_range, {})
    zoo.save(tmp_path / "told.safetensors", module, spec)
    model = fs.load(tmp_path / "told.safetensors").model
    assert (model.rows, model.denoiser().rows) == (rows, rows)
    assert fs.load(tmp_path / "tiny.safetensors").model.rows == RowFacts()
    plain = zoo.load(tmp_path / "tiny.safetensors").spec.to_json()["config"]
    assert not {"second_time", "guesses"} & plain.keys()


@pytest.mark.parametrize("rows", [RowFacts(second_time=True), RowFacts(guesses=4), RowFacts(True, 2)])
def test_the_configuration_of_diffusers_says_what_its_network_knows(rows: RowFacts, tmp_path: Path) -> None:
    network, _, _ = alive("UNet2DConditionModel")
    module: Any = with_rows(network, rows).module
    module.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    facts = SD.facts(config)
    assert (facts.rows, facts.channels, facts.extra, facts.distilled) == (rows, 4, 0, False)
    scaled: Any = with_scale(network).module
    told = SD.facts(scaled.config)
    assert (told.rows, told.distilled) == (RowFacts(), True)


def test_what_cannot_be_told_is_refused_with_what_to_do() -> None:
    told = RowFacts(second_time=True)
    with pytest.raises(InvalidInput, match="is a UNet2DConditionModel or fewstep's own, and this is a Linear: use reg"):
        with_rows(fs.Network(nn.Linear(2, 2), SCHEDULE), told)
    network, _, _ = alive("UNet2DConditionModel")
    with pytest.raises(InvalidInput, match="room for one further input, and this one is told its guidance scale"):
        with_rows(with_scale(network), told)
    with pytest.raises(InvalidInput, match="is told where each row leads was distilled already: give the model"):
        with_rows(with_rows(network, told), RowFacts(guesses=2))
    with pytest.raises(InvalidInput, match="told where its row leads in the place of a guidance scale"):
        embedded_guidance(with_rows(network, told), 3.0)
    with pytest.raises(InvalidInput, match="and cannot become the teacher of a next stage: use a method of one stage"):
        student_of(network, succeeds=True, rows=RowFacts(guesses=2))


@pytest.mark.parametrize("kind", KINDS)
def test_beside_a_lora_new_layers_are_trained_whole_and_the_others_are_the_teachers(kind: str) -> None:
    network, condition, shape = alive(kind)
    roles = student_of(network, adapter=Adapter(rank=2), rows=RowFacts(second_time=True, guesses=2))
    student, given = roles[STUDENT], dict(network.module.named_parameters())  # type: ignore[union-attr]
    last, told = ("leave", "interval") if kind == "own" else ("conv_out", "time_embedding.cond_proj")
    assert set(student.whole) == {f"{last}.weight", f"{last}.bias", f"{told}.weight"}
    trained = {name for name, weight in student.module.named_parameters() if weight.requires_grad}
    assert trained == set(student.weights) == set(student.whole) | {n for n in student.weights if ".lora_" in n}
    own = {name: weight for name, weight in student.module.named_parameters() if name not in student.weights}
    shared = {name.replace(".base_layer", ""): weight.data_ptr() for name, weight in own.items()}
    assert shared == {name: given[name].data_ptr() for name in shared}
    x, t = torch.randn(shape, generator=torch.Generator().manual_seed(2)), torch.tensor([10.0, 700.0])
    with torch.no_grad():
        found = student.network.network(x, t, **condition, r=t)
        torch.testing.assert_close(found, network.network(x, t, **condition).repeat(1, 2, 1, 1))


def test_fewsteps_own_network_may_be_told_a_scale_and_a_second_time() -> None:
    network, condition, shape = alive("own")
    roles = student_of(network, scales=(1.0, 4.0), rows=RowFacts(second_time=True))
    student: Any = roles[STUDENT].module
    assert (student.config.guidance, student.config.second_time) == (True, True)
    x, t = torch.zeros(shape), torch.tensor([10.0, 700.0])
    found = student(x, t, **condition, guidance=torch.tensor([1.0, 3.0]), r=t)
    assert torch.equal(found, network.network(x, t, **condition))


def test_a_network_says_whether_it_is_told() -> None:
    plain, x, t = tiny.network(), torch.zeros(1, 1, 4, 4), torch.zeros(1)
    with pytest.raises(InvalidInput, match="this network is not told a second time r"):
        plain(x, t, r=t)
    told: Any = with_rows(fs.Network(plain, schedules.linear()), RowFacts(second_time=True)).module
    with pytest.raises(InvalidInput, match="is told where its row leads: give r"):
        told(x, t)
