"""Images that cannot fit into memory are refused before anything is taken."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fewstep as fs
from fewstep.models.codec import Pixels
from fewstep.pipeline import Pipeline, memory
from fewstep.run.memory import UNKNOWN, free_bytes
from models.tiny_diffusers import Twins

Models = Callable[..., Twins]


def test_what_decoding_takes_grows_with_the_picture_and_not_where_it_is_tiled(models: Models) -> None:
    codec = models("sd").native.model.codec
    width = codec.vae.config.block_out_channels[0]
    once = codec.decoding_bytes((4, 8, 8), 1)
    assert once == 2 * width * 16 * 16 * 4
    assert codec.decoding_bytes((4, 16, 8), 3) == 6 * once
    assert codec.decoding_bytes((4, 8, 8), 3, fs.Decode(sliced=True)) == once
    assert codec.decoding_bytes((4, 8, 8), 3, fs.Decode(tiled=True)) == 0
    assert Pixels().decoding_bytes((3, 8, 8), 9) == 0


def test_pictures_that_cannot_fit_are_refused_with_the_size_that_can(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    sd = models("sd").native
    needed = sd.model.codec.decoding_bytes((4, 64, 32), 1)
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed // 4)
    call = {"steps": 2, "height": 128, "width": 64}
    said = rf"an image needs {needed / 1e6:.1f} MB .* at 128 x 64 pixels, .* draw at most 64 x 32 or with decode.tiled"
    with pytest.raises(fs.InvalidInput, match=said):
        sd("lion", **call)
    with pytest.raises(fs.InvalidInput, match=r"3 images at once need .* fewer images at once \(batch\)"):
        sd(["a", "b", "c"], **call)
    assert sd("lion", steps=2, height=64, width=32).tensor.shape == (1, 3, 64, 32)


def test_a_plan_of_many_registers_takes_more_states(pipe: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    state = 4 * 1 * 4 * 4
    few, many = (pipe.order([1], sampler=name, steps=4) for name in ("ddim", "unipc-3"))
    assert few.plan.registers < many.plan.registers
    monkeypatch.setattr(memory, "free_bytes", lambda device: state * (many.plan.registers - 1))
    assert pipe.draw(few).tensor.shape[0] == 1
    said = rf"an image needs {state * many.plan.registers} bytes of memory at least at 4 x 4 pixels"
    with pytest.raises(fs.InvalidInput, match=said):
        pipe.draw(many)


def test_the_host_has_memory_and_one_that_does_not_say_how_much_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 1 << 20 < free_bytes(torch.device("cpu")) < 1 << 50
    monkeypatch.setattr("fewstep.run.memory.Path", lambda name: Path("nowhere"))
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free_bytes() == installed // 2
    monkeypatch.delattr(os, "sysconf")
    assert free_bytes() == UNKNOWN
