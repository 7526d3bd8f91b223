"""Changes of a network in files: merged to the same bits, read by diffusers, and a model of its own over a base."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import conv2d

import fewstep as fs
from fewstep import InvalidInput, zoo
from fewstep.distillation import write_adapted
from fewstep.distillation.student import source_of
from fewstep.models import lowrank, recommended_by
from fewstep.models.lowrank import Changes, LowRank

from .shelf import changes, stocked
from .test_families import apart
from .test_lora import drawn, drawn_by_diffusers, theirs
from .tiny_diffusers import Twins

Models = Callable[..., Twins]


@pytest.fixture
def shelf(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of "tiny-turbo", a student of the shipped "tiny"."""
    return stocked(models("sd"), tmp_path / "weights", monkeypatch)


def test_the_product_of_a_convolution_is_one_of_its_size_and_then_one_of_a_pixel() -> None:
    draw = torch.Generator().manual_seed(1)
    down, up, x = (torch.randn(shape, generator=draw).double() for shape in ((3, 4, 3, 3), (5, 3, 1, 1), (2, 4, 6, 6)))
    assert torch.allclose(conv2d(x, LowRank(down, up).product()), conv2d(conv2d(x, down), up), atol=1e-12)
    flat = LowRank(down.flatten(1), up.flatten(1))
    assert torch.allclose(flat.product(), up.flatten(1) @ down.flatten(1), atol=1e-12)


def test_merged_weights_have_the_same_bits_with_any_number_of_threads() -> None:
    draw, threads = torch.Generator().manual_seed(1), torch.get_num_threads()
    change = LowRank(torch.randn(48, 700, generator=draw), torch.randn(300, 48, generator=draw))
    found = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            layer = nn.ModuleDict({"one": nn.Linear(700, 300)})
            nn.init.constant_(layer["one"].weight, 0.3)  # type: ignore[arg-type]
            lowrank.add(layer, Changes({"one": change}))
            found.append(layer["one"].weight)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert torch.allclose(found[0].double(), 0.3 + change.up.double() @ change.down.double(), atol=1e-5)


def test_diffusers_draws_with_the_file_what_fewstep_draws(models: Models, tmp_path: Path) -> None:
    """Whatever the ranks; by `lora=` too."""
    twins = models("sd")
    own = Changes(changes(twins.own.unet).low_rank)
    lowrank.write(tmp_path, "unet", own)
    assert not (tmp_path / lowrank.REST_FILE).exists()
    path = tmp_path / lowrank.LORA_FILE
    told = json.loads(zoo.container.inspect(path).metadata["lora_adapter_metadata"])
    assert (told["unet.r"], told["unet.lora_alpha"]) == (2, 2)
    assert told["unet.rank_pattern"] == told["unet.alpha_pattern"] == {"time_embedding.linear_1": 3}
    peer = theirs(twins, (path, 1.0))
    expected, pipe = drawn_by_diffusers(peer, "sd"), fs.load(twins.folder, lora=path)
    assert apart(drawn(pipe, peer, "sd"), expected) < 1e-5
    assert apart(drawn(twins.native, peer, "sd"), expected) > 1e-3
    merged: Any = copy.deepcopy(twins.native.model.module)
    lowrank.add(merged, lowrank.read(tmp_path, "unet"))
    pairs = zip(merged.parameters(), pipe.model.module.parameters(), strict=True)  # type: ignore[union-attr]
    assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-6


def test_a_student_over_a_shipped_model_is_a_model_of_its_own(shelf: Path) -> None:
    base, pipe = fs.load("tiny"), fs.load(shelf)
    expected: Any = copy.deepcopy(base.model.module)
    lowrank.add(expected, changes(expected))
    ours: Any = pipe.model.module
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), expected.parameters(), strict=True))
    assert not torch.equal(ours.conv_norm_out.weight, base.model.module.conv_norm_out.weight)  # type: ignore[union-attr]
    assert {tensor.requires_grad for tensor in ours.parameters()} == {False}
    assert pipe.name == "tiny-turbo"
    assert recommended_by("tiny-turbo")["guidance"] == recommended_by(str(shelf))["guidance"] == {"scale": 1.0}
    assert pipe.model.digest != base.model.digest
    images = pipe("red circle", seed=3)
    assert (images.nfe, images.drawing.guidance.scale, images.drawing.sampling.name) == (2, 1, "ddim-2")
    half: Any = fs.load(shelf, dtype="bfloat16").model.module
    assert torch.equal(half.conv_in.weight, ours.conv_in.weight.bfloat16())
    for asked in ({"guidance": 3.0}, {"negative": "blue"}):
        with pytest.raises(
            InvalidInput, match=r"a student with guidance 4 inside.*or use its teacher, tiny, for other"
        ):
            pipe("red circle", **asked)


def test_its_digest_is_over_the_base_and_both_files(shelf: Path) -> None:
    found = {fs.load(shelf).model.digest}
    rest = shelf / lowrank.REST_FILE
    save_file({name: tensor * 2 for name, tensor in load_file(rest).items()}, rest)
    found.add(fs.load(shelf).model.digest)
    rest.unlink()
    found.add(fs.load(shelf).model.digest)
    lora = shelf / lowrank.LORA_FILE
    tensors, metadata = load_file(lora), zoo.container.inspect(lora).metadata
    save_file({name: tensor * 2 for name, tensor in tensors.items()}, lora, metadata=metadata)
    found.add(fs.load(shelf).model.digest)
    encoder = shelf.parent / "tiny/text_encoder/config.json"
    encoder.write_text(encoder.read_text() + " ")
    found.add(fs.load(shelf).model.digest)
    assert len(found) == 5


def test_a_student_is_distilled_from_what_it_was_made_from(shelf: Path) -> None:
    with pytest.raises(InvalidInput, match="tiny-turbo holds only what differs from another model: give that one"):
        source_of("tiny-turbo")


@pytest.mark.parametrize("base", ["tiny-turbo", "digits", "../tiny", "/etc", 3, None, ["tiny"]])
def test_a_base_is_the_name_of_a_shipped_model_of_diffusers_and_nothing_else(shelf: Path, base: Any) -> None:
    (shelf / "fewstep.json").write_text(json.dumps({"base": base}))
    with pytest.raises(InvalidInput, match=r"made of .*; it may name a shipped model .* which are tiny, and no path"):
        fs.load(shelf)


def test_a_folder_with_a_whole_model_has_no_base(shelf: Path) -> None:
    (shelf.parent / "tiny/fewstep.json").write_text('{"base": "tiny"}')
    with pytest.raises(InvalidInput, match="it may hold sampling, guidance, clip_skip, decode"):
        fs.load(shelf.parent / "tiny")


def spoiled(shelf: Path, how: str) -> str:
    """Spoil the files of a folder; returns what is to be said."""
    lora, rest = shelf / lowrank.LORA_FILE, shelf / lowrank.REST_FILE
    tensors, metadata = load_file(lora), zoo.container.inspect(lora).metadata
    first = "unet.conv_in.lora_A.weight"
    match how:
        case "none":
            lora.unlink()
            rest.unlink()
            return "has neither pytorch_lora_weights.safetensors nor differences.safetensors"
        case "half":
            del tensors[first]
            said = "lora_A and lora_B of 'conv_in' do not fit together"
        case "shape":
            tensors[first] = tensors[first][:, :3].contiguous()
            said = r"the change of 'conv_in' has shape \(8, 3, 3, 3\), and the network has one of shape \(8, 4, 3, 3\)"
        case "name":
            tensors = {name.replace("conv_in", "conv_of"): tensor for name, tensor in tensors.items()}
            metadata = {"format": "pt"}
            said = "the network has none of that name"
        case "part":
            tensors = {name.replace("unet.", "text_encoder."): tensor for name, tensor in tensors.items()}
            said = "which is not a change of a layer of the unet"
        case "infinite":
            tensors[first][0, 0, 0, 0] = float("inf")
            said = "the change of 'conv_in' has numbers that are not finite"
        case "alpha":
            metadata["lora_adapter_metadata"] = metadata["lora_adapter_metadata"].replace(
                '"unet.lora_alpha": 2', '"unet.lora_alpha": 8'
            )
            said = "alpha of .* is 8 at rank 2: here alpha is the rank"
        case _:
            lora.write_bytes(lora.read_bytes()[:-20])
            return "truncated or damaged"
    save_file(tensors, lora, metadata=metadata)
    return said


@pytest.mark.parametrize("how", ["none", "half", "shape", "name", "part", "infinite", "alpha", "truncated"])
def test_what_does_not_fit_the_base_is_refused(shelf: Path, how: str) -> None:
    said = spoiled(shelf, how)
    with pytest.raises(InvalidInput, match=said):
        fs.load(shelf)


def test_a_student_without_changes_or_of_another_base_is_not_written(shelf: Path) -> None:
    plan = fs.load("tiny").plan("ddim", steps=2)
    with pytest.raises(InvalidInput, match="nothing differs from tiny"):
        write_adapted(shelf.parent / "new", "tiny", Changes(), [plan], {})
    with pytest.raises(InvalidInput, match="unknown shipped model in the format of diffusers 'digits'"):
        write_adapted(shelf.parent / "new", "digits", Changes(), [plan], {})
    assert not (shelf.parent / "new").exists()
