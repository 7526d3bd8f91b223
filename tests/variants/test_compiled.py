"""Functions that are compiled ahead of time: the same numbers, for batches of any size, and kept between runs."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import InvalidInput, variants
from fewstep.pipeline import Pipeline
from fewstep.variants import compiled
from fewstep.variants.compiled import Compiled
from fewstep.variants.network import call_of
from fewstep.variants.store import FOLDER, Store, usual_folder

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler, which this machine lacks"
)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)


def call(module: Scaled, x: Tensor, *, shift: Tensor, factor: Tensor) -> Tensor:
    return module.linear(x) * factor[:, None] + shift


class Eager(Store):
    """Keeps what it was asked for, and runs it as it is."""

    def loaded(self, path: Path, make: Callable[[Path], None], words: str) -> Callable[..., Any]:
        self.watch(words)
        return make.args[0]  # type: ignore[attr-defined]


def values(batch: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(batch)
    return {
        "x": torch.randn(batch, 3, generator=draw),
        "shift": torch.randn(batch, 2, generator=draw),
        "factor": torch.randn(batch, generator=draw),
    }


@pytest.mark.parametrize(("batch", "compiled_for"), [(1, [2]), (2, [2]), (3, [5]), (5, [5]), (6, [5, 2]), (12, [5, 2])])
def test_a_batch_of_any_size_is_padded_or_cut(batch: int, compiled_for: list[int]) -> None:
    said: list[str] = []
    module = Scaled()
    fast = Compiled(call, module, "a", (5, 2), Eager(Path(), said.append))  # type: ignore[arg-type]
    given = values(batch)
    found = fast(given.pop("x"), **given)
    given = values(batch)
    assert torch.allclose(found, call(module, **given), atol=1e-6)
    assert said == [
        f"compiling the network for {size} x 3: once on this machine, a minute or more" for size in compiled_for
    ]
    fast(given.pop("x"), **given)
    assert len(said) == len(compiled_for)


def test_another_function_shape_or_machine_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    first = store.path({"a": 1}, "cpu")
    assert first == store.path({"a": 1}, "cpu")
    assert first != store.path({"a": 2}, "cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    assert first != store.path({"a": 1}, "cpu")


def test_the_folder_is_the_users_own_or_one_that_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "own"))
    assert usual_folder() == tmp_path / "own" / "compiled"
    monkeypatch.delenv(FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert usual_folder() == tmp_path / "caches" / "fewstep" / "compiled"


def test_a_kill_while_it_compiles_leaves_no_file(tmp_path: Path) -> None:
    def make(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    store = Store(tmp_path / "kept")
    with pytest.raises(KeyboardInterrupt):
        store.loaded(store.path({}, "cpu"), make, "compiling")
    assert list((tmp_path / "kept").iterdir()) == []
    assert store.seconds(store.path({}, "cpu")) == 0.0


def test_the_text_that_calls_a_network_is_part_of_what_it_is(models: Callable[..., Any]) -> None:
    model = fs.load(models("sd").folder).model
    module = model.module
    assert module is not None
    found = compiled.code_of(call_of(model), module)
    assert found[0].startswith("fewstep.models.families of fewstep")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="rights are those of POSIX")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_code_that_others_could_have_written_is_not_run(what: str, tmp_path: Path) -> None:
    store = Store(tmp_path / "kept")
    store.folder.mkdir(mode=0o700)
    path = store.path({}, "cpu")
    path.write_bytes(b"code")
    open_to_all = store.folder if what == "folder" else path
    open_to_all.chmod(open_to_all.stat().st_mode | stat.S_IWOTH)
    with pytest.raises(InvalidInput, match="another user may write to it"):
        store.loaded(path, lambda path: None, "compiling")


def test_sizes_and_tensors_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="whole numbers of at least 1, got \\(0,\\)"):
        Compiled(call, Scaled(), "a", (0,), Store())  # type: ignore[arg-type]
    fast = Compiled(call, Scaled(), "a", (2,), Eager(Path()))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="the batch first, and some have another size"):
        fast(torch.zeros(2, 3), shift=torch.zeros(1, 2), factor=torch.zeros(2))


def test_without_a_compiler_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, pipe: Pipeline) -> None:
    monkeypatch.setattr(compiled.shutil, "which", lambda name: None)
    with pytest.raises(InvalidInput, match="no g\\+\\+ or clang\\+\\+ is on the PATH: install one"):
        variants.compile_model(pipe.model)


def test_a_network_that_branches_on_values_cannot_be_compiled(tmp_path: Path) -> None:
    def branching(module: Scaled, x: Tensor) -> Tensor:
        return module.linear(x) if float(x.sum()) > 0 else x[:, :2]

    fast = Compiled(branching, Scaled(), "a", (2,), Store(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="this network cannot be compiled"):
        fast(torch.ones(2, 3))
    assert list(tmp_path.iterdir()) == []


def test_a_compiled_model_draws_the_same_and_the_next_process_compiles_nothing(pipe: Pipeline, tmp_path: Path) -> None:
    said: list[str] = []
    store = Store(tmp_path / "kept", said.append)
    fast = Pipeline(variants.compile_model(pipe.model, (2,), store=store))
    own, theirs = (one([0, 1], steps=4, seed=1).tensor for one in (fast, pipe))
    assert torch.allclose(own, theirs, atol=1e-4)
    assert len(said) == 1
    again = Pipeline(variants.compile_model(pipe.model, (2,), store=store))
    assert torch.equal(again([0, 1], steps=4, seed=1).tensor, own)
    assert len(said) == 1
    took = variants.compile_seconds(fast.model)
    assert took > 0.5
    assert variants.compile_seconds(again.model) == took  # as the first process had it
    assert variants.compile_seconds(pipe.model) == 0.0
    assert fast.model.digest != pipe.model.digest
    assert again.model.digest == fast.model.digest
    with pytest.raises(InvalidInput, match="is compiled already"):
        variants.compile_model(fast.model)
