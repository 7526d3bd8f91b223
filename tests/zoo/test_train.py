"""Training: it learns, it is the same bits however often it is interrupted, and it touches nothing global."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.zoo import checkpoint, container
from fewstep.zoo.dataset import ImageSet
from fewstep.zoo.network import UNetConfig
from fewstep.zoo.objective import logistic_times
from fewstep.zoo.train import DivergedError, TrainingProgress, train
from fewstep.zoo.trainconfig import TrainConfig

NETWORK = UNetConfig(size=4, classes=2, widths=(8, 16), embedding=16)
TINY = TrainConfig(
    network=NETWORK,
    steps=120,
    batch=24,
    learning_rate=5e-3,
    warmup_steps=5,
    validate_every=60,
    state_every=40,
    held_out=0.25,
    threads=1,
)


def stripes(count: int = 40) -> ImageSet:
    """Horizontal (class 0) and vertical (class 1) stripes of 4x4 pixels with some noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    stripe = torch.tensor([0.8, -0.8, 0.8, -0.8]).expand(4, 4)
    images = torch.where((labels == 1)[:, None, None], stripe, stripe.T)[:, None]
    return ImageSet("stripes", images + 0.1 * torch.rand(images.shape, generator=generator), labels, 2)


def log(path: Path) -> list[dict]:
    lines = [json.loads(line) for line in path.with_suffix(".log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


class StopError(Exception):
    """What the progress callback raises to interrupt."""


def interrupt_at(step: int) -> Callable[[TrainingProgress], None]:
    def stop(progress: TrainingProgress) -> None:
        if progress.step >= step:
            raise StopError

    return stop


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "model.safetensors"
    train(TINY, path, data=stripes())
    return path


def test_a_run_interrupted_twice_gives_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    with pytest.raises(StopError):
        train(TINY, out, data=stripes(), progress=interrupt_at(50))
    assert sorted(os.listdir(tmp_path)) == ["model.log.jsonl", "model.state.safetensors"]
    with pytest.raises(StopError):
        train(TINY, out, data=stripes(), progress=interrupt_at(100))
    with out.with_suffix(".log.jsonl").open("a") as file:
        file.write('{"step": 101, "lo')
    result = train(TINY, out, data=stripes())
    assert result.resumed_from == 80
    assert out.read_bytes() == undisturbed.read_bytes()
    assert log(out) == log(undisturbed)
    assert sorted(os.listdir(tmp_path)) == ["model.log.jsonl", "model.safetensors"]


def test_a_killed_process_continues_to_the_same_bytes(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    source = (
        "import sys; sys.path.insert(0, sys.argv[2]); import test_train as t; from pathlib import Path;"
        "t.train(t.TINY, Path(sys.argv[1]), data=t.stripes(), progress=lambda p: t.time.sleep(0.2))"
    )
    command = [sys.executable, "-c", source, str(out), str(Path(__file__).parent)]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not out.with_suffix(".state.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not out.exists()
    assert train(TINY, out, data=stripes()).resumed_from in (40, 80)
    assert out.read_bytes() == undisturbed.read_bytes()


def test_another_seed_gives_other_weights_and_another_rhythm_of_saving_the_same(
    undisturbed: Path, tmp_path: Path
) -> None:
    rhythm = dataclasses.replace(TINY, state_every=7, validate_every=11)
    train(rhythm, tmp_path / "rhythm.safetensors", data=stripes())
    train(dataclasses.replace(TINY, seed=1), tmp_path / "seed.safetensors", data=stripes())
    first, same, other = (
        checkpoint.load(path) for path in (undisturbed, tmp_path / "rhythm.safetensors", tmp_path / "seed.safetensors")
    )
    assert same.digest == first.digest
    assert other.digest != first.digest
    assert not torch.equal(other.network.enter.weight, first.network.enter.weight)


def test_training_lowers_the_held_out_loss_and_says_so(undisturbed: Path) -> None:
    lines = log(undisturbed)
    assert [line["step"] for line in lines] == [50, 60, 100, 120, 120]
    measured = [line["held_out_loss"] for line in lines if "held_out_loss" in line]
    assert measured[1] < 0.8 * measured[0]
    facts = checkpoint.load(undisturbed).spec.training
    assert facts["held_out_loss"] == measured[1]
    assert (facts["trained_on"], facts["held_out"], facts["seed"]) == (30, 10, 0)
    assert facts["command"] == "fewstep train stripes --seed 0"


def test_training_touches_neither_the_global_generator_nor_the_thread_count(tmp_path: Path) -> None:
    torch.manual_seed(9)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train(dataclasses.replace(TINY, steps=5, threads=3), tmp_path / "model.safetensors", data=stripes())
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_progress_is_reported_every_50_steps(tmp_path: Path) -> None:
    seen: list[TrainingProgress] = []
    train(TINY, tmp_path / "model.safetensors", data=stripes(), progress=seen.append)
    assert [(p.step, p.steps) for p in seen] == [(50, 120), (100, 120), (120, 120)]
    assert [p.held_out_loss is None for p in seen] == [True, False, False]
    assert seen[0].seconds_left > 0 == seen[-1].seconds_left


def test_a_finished_run_is_not_done_again_and_not_overwritten_by_another(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    out.write_bytes(undisturbed.read_bytes())
    result = train(TINY, out, data=stripes())
    assert (result.resumed_from, result.seconds) == (120, 0.0)
    assert result.digest == checkpoint.load(undisturbed).digest
    other = dataclasses.replace(TINY, seed=1, steps=5)
    with pytest.raises(InvalidInput, match="exists already, made by another run"):
        train(other, out, data=stripes())
    assert out.read_bytes() == undisturbed.read_bytes()
    train(other, out, data=stripes(), resume=False)
    assert checkpoint.load(out).spec.training["seed"] == 1


def test_the_state_of_another_run_is_refused_setting_by_setting(tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    with pytest.raises(StopError):
        train(TINY, out, data=stripes(), progress=interrupt_at(50))
    other = dataclasses.replace(TINY, learning_rate=1e-3, network=dataclasses.replace(NETWORK, blocks=2))
    with pytest.raises(InvalidInput) as caught:
        train(other, out, data=stripes(20))
    message = str(caught.value)
    assert "config.learning_rate: 0.005 there, 0.001 now" in message
    assert "config.network.blocks: 1 there, 2 now" in message
    assert "data.digest" in message
    assert "delete" in message


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    with pytest.raises(StopError):
        train(TINY, out, data=stripes(), progress=interrupt_at(50))
    state = out.with_suffix(".state.safetensors")
    whole = container.read(state)
    document, tensors = whole.document("fewstep-train", "a state"), whole.tensors()
    container.write(state, tensors, {"fewstep-train": {**document, "step": "many"}})
    with pytest.raises(InvalidInput, match=r"description is damaged .* to start anew"):
        train(TINY, out, data=stripes())
    tensors.pop("exp_avg.norm.bias")
    container.write(state, tensors, {"fewstep-train": document})
    with pytest.raises(InvalidInput, match="not those of this network"):
        train(TINY, out, data=stripes())
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(InvalidInput, match="truncated"):
        train(TINY, out, data=stripes())


def test_a_diverging_run_stops_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewstep.zoo.train.velocity_loss", lambda *_: torch.tensor(float("nan")))
    with pytest.raises(DivergedError, match=r"the loss is nan at step 1; lower learning_rate \(0.005\)"):
        train(TINY, tmp_path / "model.safetensors", data=stripes())


def test_data_and_paths_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"images of \(1, 4, 4\) in 2 classes, but the network takes \(1, 8, 8\)"):
        train(TrainConfig(), tmp_path / "model.safetensors", data=stripes())
    with pytest.raises(InvalidInput, match=r"ends in .safetensors, in a folder that exists"):
        train(TINY, tmp_path / "model.pt", data=stripes())
    with pytest.raises(InvalidInput, match="in a folder that exists"):
        train(TINY, tmp_path / "no" / "model.safetensors", data=stripes())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps is 0; it has to be a whole number from 1"),
        ({"batch": 2.5}, "batch is 2.5"),
        ({"seed": -1}, "seed is -1"),
        ({"warmup_steps": 9999}, "warmup_steps is 9999; it has to be a whole number from 0 to 3000"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0"),
        ({"class_dropout": 1.5}, "class_dropout is 1.5; it has to be a number from 0 to 1"),
        ({"held_out": "0.1"}, "held_out is '0.1'"),
        ({"schedule": schedules.edm()}, "schedule is 'edm'; v-prediction is trained on a beta schedule"),
        ({"network": None}, "network is None"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        TrainConfig(**change)


def test_rate_and_decay_warm_up_and_the_rate_falls_to_zero() -> None:
    config = TrainConfig(steps=1000, warmup_steps=100, learning_rate=1.0, ema_decay=0.99)
    assert config.rate(0) == pytest.approx(1 / 101)
    assert config.rate(500) == pytest.approx(0.5)
    assert config.rate(999) < 1e-5
    assert [config.decay(step) for step in (0, 8, 10_000)] == [0.1, 0.5, 0.99]


@pytest.mark.parametrize("schedule", [schedules.linear(), schedules.cosine(), schedules.linear(zero_snr=True)])
def test_training_times_have_a_logistic_lambda_cut_to_the_schedule(schedule: schedules.Schedule) -> None:
    share = np.array([0.0, 0.2, 0.5, 0.8, 1.0])
    times = logistic_times(schedule, share, 1.5)
    assert schedule.lam(times[1:4]) == pytest.approx([-1.5 * np.log(4), 0.0, 1.5 * np.log(4)], abs=1e-4)
    assert times[0] == pytest.approx(schedule.t_max)
    assert times[4] == schedule.t_min
    assert np.array_equal(times, times.astype(np.float32))
