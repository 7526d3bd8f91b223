"""The checkpoint: what is written comes back bit for bit, and what is damaged or hostile is refused by name."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.zoo import checkpoint, container
from fewstep.zoo.network import UNet, UNetConfig, build

CONFIG = UNetConfig(size=4, classes=2, widths=(8, 16), embedding=8)
SPEC = checkpoint.Spec(CONFIG, "v_prediction", schedules.linear(), (-1.0, 1.0), {"seed": 3, "steps": 10})
EDM = dataclasses.replace(SPEC, prediction="edm", schedule=schedules.edm(), sigma_data=0.6)


@pytest.fixture
def network() -> UNet:
    return build(CONFIG, 3)


@pytest.fixture
def path(tmp_path: Path, network: UNet) -> Path:
    checkpoint.save(tmp_path / "model.safetensors", network, SPEC)
    return tmp_path / "model.safetensors"


def rewrite(path: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Change the document and the tensors of a checkpoint, past the checks of `save`."""
    file = container.read(path)
    document, tensors = file.document("fewstep", "a model"), file.tensors()
    change(document, tensors)
    path.write_bytes(safetensors.torch.save(tensors, metadata={"fewstep": json.dumps(document)}))


def test_what_is_saved_comes_back_bit_for_bit(path: Path, network: UNet) -> None:
    loaded = checkpoint.load(path)
    assert loaded.spec == SPEC
    assert loaded.digest == checkpoint.digest(network.state_dict(), SPEC)
    assert loaded.network.config == CONFIG
    assert not loaded.network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, loaded.network.state_dict()[name])
        assert not loaded.network.get_parameter(name).requires_grad
    assert loaded.network(torch.ones(1, 1, 4, 4), torch.zeros(1)).shape == (1, 1, 4, 4)


def test_edms_preconditioning_comes_back_with_its_sigma_data(tmp_path: Path, network: UNet) -> None:
    path = tmp_path / "edm.safetensors"
    digest = checkpoint.save(path, network, EDM)
    loaded = checkpoint.load(path)
    assert (loaded.spec, loaded.digest) == (EDM, digest)
    assert (loaded.spec.sigma_data, loaded.spec.time_scale) == (0.6, 1.0)
    assert checkpoint.digest(network.state_dict(), dataclasses.replace(EDM, sigma_data=0.5)) != digest


def test_only_files_with_sigma_data_are_of_the_version_that_older_readers_refuse(path: Path, network: UNet) -> None:
    fields = {"version", "architecture", "config", "prediction", "schedule", "sample_shape", "classes", "value_range"}
    document = container.read(path).document("fewstep", "a model")
    assert (document["version"], set(document)) == (1, fields | {"training"})
    assert set(document["config"]) == {"channels", "size", "classes", "widths", "blocks", "embedding", "heads"}
    checkpoint.save(path, network, EDM)
    document = container.read(path).document("fewstep", "a model")
    assert (document["version"], set(document)) == (2, fields | {"training", "sigma_data"})


@pytest.mark.parametrize(
    ("prediction", "sigma_data", "message"),
    [
        ("edm", None, "needs sigma_data, the standard deviation of the data; 0.5 is usual"),
        ("epsilon", 0.5, "sigma_data is of edm's preconditioning, and the network predicts epsilon: leave it out"),
        ("edm", 0.0, "must be a number from 1e-06 to 1e.06, got 0.0"),
        ("edm", float("inf"), "got inf"),
        ("edm", "0.5", "got '0.5'"),
        ("edm", True, "got True"),
    ],
)
def test_sigma_data_is_a_number_and_edms_alone(prediction: str, sigma_data: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        dataclasses.replace(SPEC, prediction=prediction, schedule=schedules.cosine(), sigma_data=sigma_data)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path, path: Path, network: UNet) -> None:
    checkpoint.save(tmp_path / "again.safetensors", network, SPEC)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_the_digest_sees_one_weight_and_every_fact(network: UNet) -> None:
    digests = {checkpoint.digest(network.state_dict(), SPEC)}
    digests.add(checkpoint.digest(network.state_dict(), dataclasses.replace(SPEC, prediction="epsilon")))
    digests.add(checkpoint.digest(network.state_dict(), dataclasses.replace(SPEC, training={"seed": 4})))
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    weights["enter.weight"].view(-1)[0] += 1e-6
    digests.add(checkpoint.digest(weights, SPEC))
    assert len(digests) == 4
    assert all(len(digest) == 16 for digest in digests)


def test_half_precision_weights_load_as_float32(path: Path, network: UNet) -> None:
    rewrite(path, lambda document, tensors: tensors.update({name: t.half() for name, t in tensors.items()}))
    weights = checkpoint.load(path).network.state_dict()
    assert all(torch.equal(weights[name], t.half().float()) for name, t in network.state_dict().items())


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    path: Path, network: UNet, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    old = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, network, dataclasses.replace(SPEC, training={}))
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == [path.name]


def test_not_finite_weights_are_neither_saved_nor_loaded(path: Path, network: UNet) -> None:
    with torch.no_grad():
        network.attention.out.weight[0, 0] = float("inf")
    with pytest.raises(InvalidInput, match=r"1 of 256 weights of tensor 'attention.out.weight' are NaN or inf"):
        checkpoint.save(path, network, SPEC)
    rewrite(path, lambda document, tensors: tensors["time1.bias"].fill_(float("nan")))
    with pytest.raises(InvalidInput, match=r"model.safetensors: 8 of 8 weights of tensor 'time1.bias'"):
        checkpoint.load(path)


def test_a_network_is_not_saved_under_the_spec_of_another(tmp_path: Path, network: UNet) -> None:
    spec = dataclasses.replace(SPEC, config=UNetConfig())
    with pytest.raises(InvalidInput, match="pass its own config"):
        checkpoint.save(tmp_path / "model.safetensors", network, spec)
    with pytest.raises(InvalidInput, match="does not exist; make it first"):
        checkpoint.save(tmp_path / "no" / "model.safetensors", network, SPEC)


CHANGES: dict[str, tuple[Callable[[dict[str, Any], dict[str, torch.Tensor]], None], str]] = {
    "version": (lambda d, t: d.update(version=3), "format version 3; this fewstep reads versions 1 and 2"),
    "version-lacks": (lambda d, t: d.update(version=2), r"lacks \['sigma_data'\]"),
    "version-early": (lambda d, t: d.update(sigma_data=0.5), r"unknown \['sigma_data'\]"),
    "version-edm": (lambda d, t: d.update(prediction="edm"), "needs sigma_data"),
    "version-of-another": (lambda d, t: d.update(version=2, sigma_data=0.5), "the network predicts v_prediction"),
    "sigma-data": (lambda d, t: d.update(version=2, prediction="edm", sigma_data=1e200), r"from 1e-06 to 1e\+06"),
    "architecture": (lambda d, t: d.update(architecture="unit"), "unknown architecture 'unit'"),
    "prediction": (lambda d, t: d.update(prediction="v_predicton"), "did you mean 'v_prediction'"),
    "prediction-kind": (lambda d, t: d.update(prediction=["epsilon"]), "unknown prediction type"),
    "extra-field": (lambda d, t: d.update(more=1), r"unknown \['more'\]"),
    "lost-field": (lambda d, t: d.pop("schedule"), r"lacks \['schedule'\]"),
    "config-kind": (lambda d, t: d.update(config=[]), "it has to be a JSON object"),
    "config-huge": (lambda d, t: d["config"].update(widths=[4096] * 9), r"len\(widths\) is 9"),
    "config-large": (lambda d, t: d["config"].update(widths=[4096, 4096], blocks=8), "tensors are missing"),
    "config-shape": (lambda d, t: d["config"].update(widths=[8, 24]), "but the config needs"),
    "classes": (lambda d, t: d.update(classes=3), "classes is 3 but the config says 2"),
    "sample-shape": (lambda d, t: d.update(sample_shape=[1, 8, 8]), "sample_shape is"),
    "schedule": (lambda d, t: d.update(schedule={"kind": "liner"}), "did you mean 'linear'"),
    "schedule-kind": (lambda d, t: d.update(schedule={"kind": ["linear"]}), "an object with a `kind`"),
    "schedule-value": (lambda d, t: d["schedule"].update(beta_start="x"), "the schedule cannot be used"),
    "schedule-huge": (lambda d, t: d["schedule"].update(num_train_timesteps=10**12), "100000"),
    "range": (lambda d, t: d.update(value_range=[1, -1]), "two finite numbers, the smaller first"),
    "range-kind": (lambda d, t: d.update(value_range="ab"), "two finite numbers"),
    "training": (lambda d, t: d.update(training=3), "training is a int"),
    "missing": (lambda d, t: t.pop("norm.bias"), r"1 tensors are missing \['norm.bias'\]"),
    "unknown": (lambda d, t: t.update(more=torch.zeros(1)), r"1 are unknown \['more'\]"),
    "shape": (lambda d, t: t.update({"norm.bias": torch.zeros(9)}), r"'norm.bias' has shape \(9,\), but the"),
    "dtype": (lambda d, t: t.update({"norm.bias": torch.zeros(8).long()}), "'norm.bias' has dtype I64"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_contradicts_itself_is_refused_by_field(path: Path, name: str) -> None:
    change, message = CHANGES[name]
    rewrite(path, change)
    with pytest.raises(InvalidInput, match=message) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.2, 0.5, 0.999])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InvalidInput, match=r"truncated|not a safetensors file"):
        checkpoint.load(path)


def torch_save(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch_save({"w": torch.zeros(2)}), "zip archive, such as torch.save writes"),
        (pickle.dumps({"w": 1}, protocol=2), "a Python pickle"),
        (pickle.dumps({"w": 1}), "a Python pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!doctype html><html>not found</html>", "not a safetensors file"),
        ((1 << 40).to_bytes(8, "little") + b"{" + b" " * 64, "header too large"),
        ((9000).to_bytes(8, "little") + b"{" + b"[" * 8999, "invalid JSON in header"),
        ((9000).to_bytes(8, "little") + b'{"a":' + b"[" * 8995, "recursion limit exceeded"),
        ((9).to_bytes(8, "little") + b'{"a":NaN}', "invalid JSON in header: expected value"),
        ((7).to_bytes(8, "little") + b'{"a":1}', "integer `1`, expected struct TensorInfo"),
        ((20).to_bytes(8, "little") + b'{"__metadata__":[1]}', "sequence, expected a map"),
    ],
)
def test_what_is_not_safetensors_is_recognised_and_not_opened(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(InvalidInput, match=message):
        checkpoint.load(tmp_path / "x.safetensors")


def test_a_header_whose_length_looks_like_a_pickle_is_a_header(tmp_path: Path) -> None:
    def size(name: str) -> int:
        return int.from_bytes(safetensors.torch.save({name: torch.zeros(1)})[:8], "little")

    name = "x" * next(n for n in range(1000, 1500) if size("x" * n) == 0x0480)
    content = safetensors.torch.save({name: torch.ones(1)})
    assert content.startswith(b"\x80\x04")
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert container.inspect(path).shapes == {name: (1,)}
    assert torch.equal(container.read(path).tensors()[name], torch.ones(1))


def test_safetensors_of_another_program_are_refused(tmp_path: Path) -> None:
    safetensors.torch.save_file({"w": torch.zeros(2)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidInput, match=r"not a fewstep model: its metadata have no 'fewstep'"):
        checkpoint.load(tmp_path / "x.safetensors")


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path, path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"the limit is 1,000. If you trust it, raise max_bytes"):
        checkpoint.load(path, max_bytes=1000)
    with (tmp_path / "sparse.safetensors").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidInput, match="1,099,511,627,776 bytes; the limit is 67,108,864"):
        checkpoint.load(tmp_path / "sparse.safetensors")


def test_a_path_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no file at .*none.safetensors"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(InvalidInput, match="is a folder"):
        checkpoint.load(tmp_path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(place=st.integers(0, 4000), value=st.integers(0, 255), cut=st.integers(0, 200))
def test_a_flipped_byte_gives_a_clear_error_or_a_valid_network(path: Path, place: int, value: int, cut: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] = value
    damaged = path.with_name("damaged.safetensors")
    damaged.write_bytes(content[: len(content) - cut] if cut > 100 else content)
    try:
        loaded = checkpoint.load(damaged)
    except InvalidInput as error:
        message = str(error)
    else:
        message = "damaged.safetensors is still finite"
        assert all(torch.isfinite(tensor).all() for tensor in loaded.network.state_dict().values())
    assert "damaged.safetensors" in message
