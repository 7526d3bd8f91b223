"""The digits' recipe: it learns, is the same bits however often it is interrupted, and touches nothing global."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fewstep as fs
from fewstep import schedules, zoo
from fewstep.core.errors import InvalidInput
from fewstep.recipes import DigitsRecipe, train_digits
from fewstep.recipes.digits import finished_in, run_of
from fewstep.recipes.held_out import measured_loss
from fewstep.recipes.labelled import Labelled
from fewstep.training import STUDENT, Denoising, Diverged, Draws, Loss, Progress, Role, one_stage
from fewstep.training.times import distribution
from fewstep.zoo import checkpoint, digits

from .stripes import NETWORK, TINY, stripes


class StopError(Exception):
    """What a watcher raises to interrupt."""


def interrupt_at(step: int) -> Callable[[Progress], None]:
    def stop(now: Progress) -> None:
        if now.step >= step and now.losses:
            raise StopError

    return stop


def log(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in (path.with_suffix("") / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "model.safetensors"
    train_digits(TINY, path, data=stripes())
    return path


def test_edms_preconditioning_is_written_with_its_sigma_data(tmp_path: Path) -> None:
    short = replace(TINY.settings, steps=2, warmup=0)
    recipe = replace(TINY, prediction="edm", schedule=schedules.edm(), method=Denoising(), settings=short)
    done = train_digits(recipe, tmp_path / "edm.safetensors", data=stripes())
    assert zoo.load(done.path).spec.sigma_data == 0.5


def test_a_flow_is_told_the_times_that_its_file_tells(tmp_path: Path) -> None:
    short = replace(TINY.settings, steps=2, warmup=0)
    recipe = replace(TINY, prediction="flow", schedule=schedules.flow(), method=Denoising(), settings=short)
    done = train_digits(recipe, tmp_path / "flow.safetensors", data=stripes())
    learned = run_of(recipe, stripes(), tmp_path / "run").roles[STUDENT].network
    assert learned.time_scale == fs.load(done.path).model.time_scale == 1000


def test_a_run_interrupted_twice_gives_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    with pytest.raises(StopError):
        train_digits(TINY, out, data=stripes(), watch=interrupt_at(25))
    assert not out.exists()
    with pytest.raises(StopError):
        train_digits(TINY, out, data=stripes(), watch=interrupt_at(50))
    with (tmp_path / "model/log.jsonl").open("a") as file:
        file.write('{"step": 51, "lo')
    result = train_digits(TINY, out, data=stripes())
    assert result.resumed_from == 40
    assert out.read_bytes() == undisturbed.read_bytes()
    assert [line["step"] for line in log(out)] == [line["step"] for line in log(undisturbed)] == [25, 50, 60]
    assert sorted(os.listdir(tmp_path)) == ["model", "model.safetensors"]
    assert os.listdir(tmp_path / "model") == ["log.jsonl"]


def test_another_seed_gives_other_weights_and_another_rhythm_of_saving_the_same(
    undisturbed: Path, tmp_path: Path
) -> None:
    rhythm = replace(TINY, settings=replace(TINY.settings, state_every=7, log_every=11))
    seed = replace(TINY, settings=replace(TINY.settings, seed=1))
    same = train_digits(rhythm, tmp_path / "rhythm.safetensors", data=stripes())
    other = train_digits(seed, tmp_path / "seed.safetensors", data=stripes())
    assert same.digest == checkpoint.load(undisturbed).digest != other.digest


def test_training_lowers_the_loss_on_images_held_out_and_the_file_says_how(undisturbed: Path, tmp_path: Path) -> None:
    short = replace(TINY, settings=replace(TINY.settings, steps=10))
    first = train_digits(short, tmp_path / "short.safetensors", data=stripes())
    facts = checkpoint.load(undisturbed).spec.training
    assert facts["held_out_loss"] < 0.8 * first.held_out_loss
    assert (facts["trained_on"], facts["held_out"], facts["seed"], facts["steps"]) == (36, 4, 0, 60)
    assert facts["settings"]["rate"] == 5e-3
    assert facts["method"]["dropout"] == 0.12
    assert facts["command"] == "fewstep train stripes --seed 0"


def test_training_touches_neither_the_global_generator_nor_the_thread_count(tmp_path: Path) -> None:
    torch.manual_seed(9)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    few = replace(TINY, settings=replace(TINY.settings, steps=5), threads=3)
    train_digits(few, tmp_path / "model.safetensors", data=stripes())
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_a_finished_run_is_not_done_again_and_not_overwritten_by_another(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    out.write_bytes(undisturbed.read_bytes())
    result = train_digits(TINY, out, data=stripes())
    assert (result.resumed_from, result.seconds) == (60, 0.0)
    assert result.digest == checkpoint.load(undisturbed).digest
    other = replace(TINY, settings=replace(TINY.settings, seed=1, steps=5))
    with pytest.raises(InvalidInput, match="exists already, made by another run"):
        train_digits(other, out, data=stripes())
    assert out.read_bytes() == undisturbed.read_bytes()
    train_digits(other, out, data=stripes(), resume=False)
    assert checkpoint.load(out).spec.training["seed"] == 1


def test_a_file_of_the_earlier_loop_is_another_run(tmp_path: Path) -> None:
    run = run_of(DigitsRecipe(), digits.load(), tmp_path)
    assert finished_in(zoo.shipped_path("digits"), run) is None


def test_the_states_of_another_run_are_refused_setting_by_setting(tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    with pytest.raises(StopError):
        train_digits(TINY, out, data=stripes(), watch=interrupt_at(25))
    other = replace(TINY, network=replace(NETWORK, blocks=2), settings=replace(TINY.settings, rate=1e-3), threads=2)
    with pytest.raises(InvalidInput) as caught:
        train_digits(other, out, data=stripes(20))
    message = str(caught.value)
    for words in (
        "settings.rate is 0.005 there and 0.001 here",
        "network.blocks is 1 there and 2 here",
        "threads is 1 there and 2 here",
        "data.digest is",
    ):
        assert words in message
    anew = replace(TINY, settings=replace(TINY.settings, steps=3))
    assert train_digits(anew, out, data=stripes(20), resume=False).resumed_from == 0


def test_a_diverging_run_stops_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(*_: object) -> Iterator[Loss]:
        yield Loss(STUDENT, torch.tensor(float("nan")))

    monkeypatch.setattr(Denoising, "losses", losses)
    with pytest.raises(Diverged, match=r"nan at step 1, of the samples .*: lower the rate \(0.005\)"):
        train_digits(TINY, tmp_path / "model.safetensors", data=stripes())


def test_data_paths_and_threads_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"images of \(1, 4, 4\) in 2 classes, but the network takes \(1, 8, 8\)"):
        train_digits(DigitsRecipe(), tmp_path / "model.safetensors", data=stripes())
    with pytest.raises(InvalidInput, match=r"ends in .safetensors, in a folder that exists"):
        train_digits(TINY, tmp_path / "model.pt", data=stripes())
    with pytest.raises(InvalidInput, match="in a folder that exists"):
        train_digits(TINY, tmp_path / "no" / "model.safetensors", data=stripes())
    with pytest.raises(InvalidInput, match="threads must be a whole number from 1 to 256, got 0"):
        DigitsRecipe(threads=0)


@pytest.mark.parametrize("schedule", [schedules.linear(), schedules.cosine()])
def test_training_times_have_a_logistic_lambda_of_scale_one(schedule: schedules.Schedule) -> None:
    """Its quantiles are log(p / (1 - p)), of the shares that the schedule leaves."""
    method = DigitsRecipe().method
    network = fs.Network(nn.Identity(), schedule, "v_prediction")
    share = np.array([0.2, 0.5, 0.8])
    times = distribution(method.times, method.mean, method.deviation, network).at(network, share)
    ends = 1 / (1 + np.exp(schedule.lam(np.array([schedule.t_min, schedule.t_max]))))
    left = ends[0] + (ends[1] - ends[0]) * share
    assert schedule.lam(times) == pytest.approx(-np.log(left / (1 - left)), abs=1e-6)
    assert schedule.lam(times) == pytest.approx([np.log(4), 0.0, -np.log(4)], abs=0.05)


class Told(nn.Module):
    """Answers nothing, and keeps the labels that it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.labels: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        self.labels.append(label)
        return self.weight * x


def test_an_eighth_of_the_labels_is_dropped_and_the_others_are_the_images_own() -> None:
    told, data, recipe = Told(), stripes(200), DigitsRecipe()
    roles = {STUDENT: Role(fs.Network(told, recipe.schedule, "v_prediction"))}
    numbers = list(range(200))
    for step in range(20):
        draws = Draws(0, step, numbers, numbers, 200)
        list(recipe.method.losses(roles, Labelled(data).batch(numbers), one_stage(step, 20), draws))
    labels = torch.stack(told.labels)
    assert float((labels == 2).double().mean()) == pytest.approx(0.12, abs=0.015)
    assert bool(((labels == data.labels) | (labels == 2)).all())


def test_the_measured_loss_of_a_known_network_is_a_closed_form() -> None:
    """A velocity of zero misses alpha e - sigma x0, of mean square alpha^2 + sigma^2 mean(x0^2)."""
    schedule, images = schedules.linear(), stripes()
    network = fs.Network(Told(), schedule, "v_prediction")
    times = schedule.t_min + (np.arange(16) + 0.5) / 16 * (schedule.t_max - schedule.t_min)
    square = float(images.images.square().mean())
    expected = float(np.mean(schedule.alpha(times) ** 2 + schedule.sigma(times) ** 2 * square))
    assert measured_loss(network, images, seed=3) == pytest.approx(expected, rel=0.05)
