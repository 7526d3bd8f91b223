"""From data to a model: new ones and such that go on, resumed to the same bits, with latents made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewstep as fs
from data.pictures import picture, write_folder
from fewstep import InvalidInput
from fewstep.data import Arrays, Folder, Scenes, Skipped, Tolerant
from fewstep.training import Anew, Denoising, Examples, New, Progress, Settings, Watching, examples_of, train_on
from fewstep.training.examples import Conditions
from models import tiny, tiny_diffusers

SMALL = New(widths=(8,), embedding=8, heads=1)
QUICK = Settings(steps=6, batch=4, state_every=2, log_every=2, seed=3)


def numbers(path: Path, count: int = 10, labels: bool = True) -> Path:
    """Numbers of 4 x 4 pixels in two classes."""
    images = np.random.default_rng(0).random((count, 4, 4)).astype(np.float32)
    np.savez(path, images=images, **({"labels": np.arange(count) % 2} if labels else {}))
    return path


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return fs.zoo.load(path).network.state_dict()


def test_a_new_flow_is_trained_and_drawn_with_by_euler(tmp_path: Path) -> None:
    found = train_on(numbers(tmp_path / "a.npz"), SMALL, tmp_path / "run", settings=QUICK)
    assert found.path == tmp_path / "run/model.safetensors"
    images = fs.load(found.path)([0, 1, None], guidance=1.0)
    assert (images.nfe, images.drawing.sampling.sampler) == (20, "euler")
    model = found.pipe.model
    assert (model.prediction, model.schedule.kind, model.time_scale) == ("flow", "flow", 1000.0)
    spec = fs.zoo.load(found.path).spec
    assert (spec.classes, spec.sample_shape) == (2, (1, 4, 4))
    assert spec.training["method"]["name"] == "denoising"
    assert spec.training["data"]["count"] == 10


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_other_predictions_recommend_another_sampler(prediction: str, tmp_path: Path) -> None:
    new, short = replace(SMALL, prediction=prediction), replace(QUICK, steps=1)
    found = train_on(numbers(tmp_path / "a.npz"), new, tmp_path / "run", method=Denoising(rows=7), settings=short)
    assert found.pipe.order([1]).drawing.sampling.name == "dpmpp-2m-7"
    assert found.pipe.model.schedule.kind == "cosine"


def test_a_new_edm_model_is_read_back_to_the_same_bits_and_drawn_with_on_karras(tmp_path: Path) -> None:
    data, new = numbers(tmp_path / "a.npz"), replace(SMALL, prediction="edm", sigma_data=0.6)
    found = train_on(data, new, tmp_path / "run", settings=QUICK)
    images = found.pipe([0, 1, None], seed=4)
    assert (images.drawing.sampling.name, images.drawing.sampling.grid) == ("dpmpp-2m-20", "karras")
    model = found.pipe.model
    assert (model.prediction, model.schedule.kind, model.sigma_data) == ("edm", "edm", 0.6)
    copied = fs.load(found.path.rename(tmp_path / "copied.safetensors"))
    assert torch.equal(copied([0, 1, None], seed=4).tensor, images.tensor)
    further = train_on(data, tmp_path / "copied.safetensors", tmp_path / "further", settings=QUICK)
    assert further.pipe.model.sigma_data == 0.6


def test_a_new_edm_model_draws_the_only_picture_of_a_class(tmp_path: Path) -> None:
    pictures = np.array([[[0.2, 0.9], [0.4, 0.1]], [[0.7, 0.3], [0.1, 0.8]]], np.float32)
    np.savez(tmp_path / "a.npz", images=pictures, labels=np.arange(2))
    new, settings = New("edm", widths=(16,), embedding=16, heads=1), Settings(steps=300, batch=32, rate=1e-2)
    found = train_on(tmp_path / "a.npz", new, tmp_path / "run", method=Denoising(dropout=0), settings=settings)

    def error(path: Path) -> float:
        drawn = fs.load(path)([0, 1, 0, 1], seed=1, guidance=1.0).tensor
        return float((drawn - torch.from_numpy(2 * pictures[[0, 1, 0, 1], None] - 1)).square().mean().sqrt())

    assert error(tmp_path / "run/start.safetensors") > 0.5
    assert error(found.path) < 0.2


class Stop(Exception):
    pass


def test_an_interrupted_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    small = replace(SMALL, size=4)

    def stop(now: Progress) -> None:
        if now.step == 4:
            raise Stop

    whole = train_on(data, small, tmp_path / "whole", settings=QUICK, mirror=True)
    with pytest.raises(Stop):
        train_on(data, small, tmp_path / "parts", settings=QUICK, mirror=True, watch=Watching(training=stop))
    again = train_on(data, small, tmp_path / "parts", settings=QUICK, mirror=True)
    assert whole.path.read_bytes() == again.path.read_bytes()


def test_other_data_or_settings_are_noticed_where_a_run_goes_on(tmp_path: Path) -> None:
    data, small = write_folder(tmp_path / "data"), replace(SMALL, size=4)
    train_on(data, small, tmp_path / "run", settings=QUICK)
    for change, said in (
        ({"mirror": True}, "data.mirror is False there and True here"),
        ({"method": Denoising(min_snr=5.0)}, "method.min_snr is None there and 5.0 here"),
    ):
        with pytest.raises(InvalidInput, match=said):
            train_on(data, small, tmp_path / "run", settings=QUICK, **change)  # type: ignore[arg-type]
    picture(1, (50, 50)).save(data / "cats/1.png")
    with pytest.raises(InvalidInput, match=r"data.digest is '\w+' there and '\w+' here"):
        train_on(data, small, tmp_path / "run", settings=QUICK)


def test_a_picture_that_cannot_be_read_is_left_out_and_said(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "data")
    (data / "cats/3.png").write_bytes(b"no picture")
    with pytest.warns(Skipped, match=r"cats/3.png is not a picture"):
        found = train_on(data, replace(SMALL, size=4), tmp_path / "run", settings=QUICK)
    assert list(found.lost) == [1]


def test_a_model_goes_on_from_its_weights_or_anew(tmp_path: Path) -> None:
    tiny.write(tmp_path / "tiny.safetensors", size=4)
    data = numbers(tmp_path / "a.npz")
    still = replace(QUICK, steps=1, rate=0.0)
    first = weights_of(tmp_path / "tiny.safetensors")
    same = train_on(data, tmp_path / "tiny.safetensors", tmp_path / "same", settings=still)
    assert all(torch.equal(first[name], tensor) for name, tensor in weights_of(same.path).items())
    anew = [
        train_on(
            data, Anew(tmp_path / "tiny.safetensors"), tmp_path / f"anew{seed}", settings=replace(still, seed=seed)
        )
        for seed in (1, 2)
    ]
    others = [weights_of(one.path)["enter.weight"] for one in anew]
    assert not torch.equal(others[0], others[1])
    assert not torch.equal(others[0], first["enter.weight"])
    assert same.pipe.model.prediction == anew[0].pipe.model.prediction == "v_prediction"


def test_a_text_to_image_model_learns_latents_that_are_encoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_diffusers.write("sd", tmp_path / "sd")
    data = write_folder(tmp_path / "data", captions=True)
    told: list[tuple[int, int]] = []
    short = replace(QUICK, steps=2)
    watch = Watching(encoding=lambda done, of: told.append((done, of)))
    found = train_on(data, tmp_path / "sd", tmp_path / "run", settings=short, mirror=True, watch=watch)
    assert told == [(12, 12)]
    assert found.path == tmp_path / "run/model"
    assert (found.path / "training.json").is_file()
    before, after = fs.load(tmp_path / "sd"), fs.load(found.path)
    assert before.model.digest != after.model.digest
    assert after("red circle", steps=2, negative="blue").nfe == 4
    monkeypatch.setattr("fewstep.training.examples.encoded", None)
    again = train_on(data, tmp_path / "sd", tmp_path / "run", settings=short, mirror=True)
    assert again.pipe.model.digest == after.model.digest
    lines = (data / "metadata.jsonl").read_text()
    (data / "metadata.jsonl").write_text(lines.replace("colour 5", "colour five"))
    with pytest.raises(InvalidInput, match="was made from other data or by another model"):
        train_on(data, tmp_path / "sd", tmp_path / "run", settings=short, mirror=True)


@pytest.mark.parametrize("kind", ["ddpm", "dit"])
def test_networks_of_diffusers_are_trained_anew(kind: str, tmp_path: Path) -> None:
    tiny_diffusers.write(kind, tmp_path / kind)
    side = fs.load(tmp_path / kind).model.sizes.height
    images = np.zeros((6, side, side, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, **({"labels": np.arange(6) % 2} if kind == "dit" else {}))
    found = train_on(tmp_path / "a.npz", Anew(tmp_path / kind), tmp_path / "run", settings=replace(QUICK, steps=1))
    assert fs.load(found.path)(None if kind == "ddpm" else [1], steps=2).drawing.sampling.name == "dpmpp-2m-2"


def small_examples(path: Path, mirror: bool) -> Examples:
    write_folder(path / "data", 4)
    tiny.write(path / "tiny.safetensors", channels=3)
    return examples_of(Folder.of(path / "data"), fs.load(path / "tiny.safetensors"), path / "run", mirror)


def test_mirrored_pictures_are_samples_of_their_own(tmp_path: Path) -> None:
    plain, both = small_examples(tmp_path, False), small_examples(tmp_path, True)
    assert (plain.count, both.count) == (4, 8)
    batch = both.batch([1, 5])
    assert torch.equal(batch.data[0].flip(-1), batch.data[1])
    assert torch.equal(batch.data[0], plain.batch([1]).data[0])
    assert batch.condition["label"].tolist() == [0, 0]
    assert batch.negative is not None
    assert batch.negative["label"].tolist() == [tiny.CLASSES] * 2


def test_a_sample_is_the_same_in_any_batch(tmp_path: Path) -> None:
    found = small_examples(tmp_path, False)
    assert torch.equal(found.batch([3, 0, 2]).data[[1, 0]], found.batch([0, 3]).data)


def test_captions_are_told_with_the_empty_one_beside_them(tmp_path: Path) -> None:
    tiny_diffusers.write("sd", tmp_path / "sd")
    told = Conditions(fs.load(tmp_path / "sd")).of(["red circle", "blue square", "red circle"])
    (own,), (empty,) = told.positive.values(), (told.negative or {}).values()
    assert torch.equal(own[0], own[2])
    assert not torch.equal(own[0], own[1])
    assert torch.equal(empty[0], empty[1])


def of_classes(path: Path) -> Any:
    return Arrays.of(numbers(path / "a.npz"))


def of_nothing(path: Path) -> Any:
    return Arrays.of(numbers(path / "a.npz", labels=False))


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        (of_classes, "sd", "trained on captions, and the data have labels"),
        (lambda path: Scenes(4), "tiny", "trained on classes, and the data have captions"),
        (of_nothing, "tiny", "trained on 3 classes, and the data have no labels"),
        (of_classes, "ddpm", "has 1 classes, and the data have 2"),
    ],
)
def test_data_that_do_not_say_what_the_model_is_told_are_refused(
    source: Callable[[Path], Any], kind: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "model"
    if kind == "tiny":
        path = tiny.write(tmp_path / "tiny.safetensors")
    else:
        tiny_diffusers.write(kind, path)
    with pytest.raises(InvalidInput, match=said):
        train_on(source(tmp_path), path, tmp_path / "run", settings=QUICK)


def test_new_networks_and_methods_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    data = numbers(tmp_path / "a.npz")
    for new, said in (
        (replace(SMALL, size=8), r"has shape \(1, 4, 4\), and the model takes \(1, 8, 8\)"),
        (replace(SMALL, schedule=fs.schedules.linear(zero_snr=True), prediction="epsilon"), "says nothing of the data"),
    ):
        with pytest.raises(InvalidInput, match=said):
            train_on(data, new, tmp_path / "run", settings=QUICK)
    with pytest.raises(InvalidInput, match="a new network is told classes"):
        train_on(Scenes(4), SMALL, tmp_path / "run", settings=QUICK)
    with pytest.raises(InvalidInput, match="channels must be 1 for grey or 3"):
        New(channels=2)
    with pytest.raises(InvalidInput, match="unknown prediction type 'flo'"):
        New("flo")
    with pytest.raises(InvalidInput, match="the network predicts flow: leave it out, or predict edm"):
        New(sigma_data=0.5)
    with pytest.raises(InvalidInput, match=r"sigma_data must be a number .* got -0.5"):
        New("edm", sigma_data=-0.5)
    with pytest.raises(InvalidInput, match="which predicts epsilon: predict edm, or leave the schedule out"):
        New("epsilon", fs.schedules.edm())
    with pytest.raises(InvalidInput, match="neither a shipped model"):
        train_on(data, tmp_path, tmp_path / "run", settings=QUICK)


def test_a_student_of_few_steps_is_not_trained_on_data(tmp_path: Path) -> None:
    net = tiny.network()
    facts = {"student": {"teacher": "tiny", "guidance": 2.0}}
    spec = fs.zoo.Spec(net.config, "v_prediction", fs.schedules.linear(), (-1.0, 1.0), facts)
    fs.zoo.save(tmp_path / "student.safetensors", net, spec)
    with pytest.raises(InvalidInput, match="train its teacher, tiny, and distil it again"):
        train_on(numbers(tmp_path / "a.npz"), tmp_path / "student.safetensors", tmp_path / "run", settings=QUICK)


def test_tolerance_does_not_change_what_names_the_data(tmp_path: Path) -> None:
    source = of_classes(tmp_path)
    assert Tolerant(source).identity == source.identity
