"""Real pictures in the place of the teacher's: a student comes nearer to them than it is, and goes on bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import fewstep as fs
from fewstep import InvalidInput, distillation
from fewstep.data import Skipped
from fewstep.distillation import (
    METHODS,
    Adversarial,
    Checks,
    Consistency,
    ContinuousConsistency,
    Distilled,
    DistributionMatching,
    Endpoint,
    GuidanceInput,
    Health,
    LatentConsistency,
    MeanFlow,
    Measuring,
    Phased,
    Policy,
    Progressive,
    Reflow,
    Regression,
    Settings,
    Source,
    Watch,
    suitability,
)
from fewstep.distillation.work import Work
from fewstep.training import STATES, STUDENT, Phase, train, without_data
from fewstep.zoo import container
from models import tiny, tiny_diffusers

COUNT, BRIGHT = 24, 0.8
QUICK = Settings(steps=8, batch=8, rate=1e-3, state_every=5, log_every=4)
UNSEEN = Measuring(Checks(every=0))


def pictures(seed: int = 0, size: int = 4, count: int = COUNT) -> NDArray[np.float32]:
    """Bright ones, in [0, 1]."""
    noise = np.random.default_rng(seed).standard_normal((count, size, size))
    return np.clip(BRIGHT + 0.05 * noise, 0, 1).astype(np.float32)


def write(path: Path, images: NDArray[Any] | None = None, labels: bool = True, classes: int = tiny.CLASSES) -> Path:
    images = pictures() if images is None else images
    more = {"labels": np.arange(len(images)) % classes} if labels else {}
    np.savez(path, images=images, **more)
    return path


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny.safetensors")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data.npz")


def source(data: Path | None, **more: Any) -> Source:
    given = {"data": data} if data is not None else {"count": COUNT}
    return Source(**{"steps": 3, "held_out": 16, "guidance": 1.0, **given, **more})


def brightness(teacher: Path, method: Any, folder: Path, of: Source, settings: Settings) -> float:
    """The mean value of what a student draws, in [-1, 1]."""
    work = Work.of(teacher, method, folder, settings, of, UNSEEN, None)
    there = work.data(lambda done, of: None, lambda done, of: None)
    run = work.run(work.roles(there), there)
    train(run)
    network = run.roles[STUDENT].network.given({"label": torch.arange(30) % tiny.CLASSES})
    noise = torch.randn(30, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    return float(fs.sample(method.plan(run.roles[STUDENT].network), network, noise=noise).mean())


LEARNS = Settings(steps=40, batch=8, rate=5e-3, width=0, state_every=10**6, log_every=10**6)


@pytest.mark.parametrize("method", [Adversarial(), DistributionMatching(adversary=3.0, ratio=1)])
def test_a_student_with_a_discriminator_goes_to_the_data_and_not_to_its_teacher(
    method: Any, teacher: Path, data: Path, tmp_path: Path
) -> None:
    seen, unseen = (brightness(teacher, method, tmp_path / str(of is None), source(of), LEARNS) for of in (data, None))
    assert unseen < 0.1
    assert seen > unseen + 0.3


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Distilled, list[Health], Path]:
    """A run with looks and a report, of a method whose student makes pictures of its own."""
    folder = tmp_path_factory.mktemp("learned")
    teacher, data = tiny.write(folder / "tiny.safetensors"), write(folder / "data.npz")
    seen: list[Health] = []
    found = distillation.distill(
        teacher,
        Adversarial(),
        folder / "run",
        settings=LEARNS,
        source=source(data),
        measuring=Measuring(Checks(every=20, count=16)),
        watch=Watch(health=seen.append),
    )
    return found, seen, folder / "run"


def test_the_report_has_the_distance_to_data_beside_the_teachers(learned: tuple[Distilled, Any, Path]) -> None:
    found, _, folder = learned
    realism = found.report.realism
    assert realism is not None
    assert realism.student is not None
    assert realism.teacher is not None
    assert realism.student.value < 0.7 * realism.teacher.value
    assert realism.images == 16
    assert any(note.startswith("To 16 real pictures the student has a kernel distance") for note in found.report.notes)
    told = json.loads((folder / "report.json").read_text())
    assert told["realism"]["student"]["value"] == pytest.approx(realism.student.value)
    assert (told["cost"]["pictures"], told["cost"]["real"], told["cost"]["drawing"]) == (0, COUNT, None)


def test_looks_keep_what_is_nearest_to_the_data(learned: tuple[Distilled, list[Health], Path]) -> None:
    found, seen, _ = learned
    by_data = {look.step: look.figures["distance to data"] for look in seen}
    by_teacher = {look.step: look.figures["distance"] for look in seen}
    assert by_data[40] < by_data[20]
    assert by_teacher[40] > by_teacher[20]
    assert found.report.step == 40


def test_the_teacher_draws_nothing_to_learn_from(learned: tuple[Distilled, Any, Path]) -> None:
    folder = learned[2]
    assert all(int(part.name.split("-")[0]) > 0 for part in (folder / "pairs").iterdir())
    run = json.loads((folder / "states/step-00000040/manifest.json").read_text())["run"]
    assert (run["data"]["kind"], run["data"]["count"], run["data"]["guidance"]) == ("arrays", COUNT, 1.0)


def stopped(now: Any) -> None:
    if now.step == 8:
        raise Killed


class Killed(BaseException):
    """Not an Exception, as a kill is none."""


def test_a_run_goes_on_to_the_same_bits_and_with_the_same_data_alone(teacher: Path, data: Path, tmp_path: Path) -> None:
    method = DistributionMatching(adversary=0.1, ratio=3)
    settings = Settings(steps=9, batch=8, state_every=4, log_every=4)

    def run(name: str, of: Source, **more: Any) -> dict[str, Tensor]:
        work = Work.of(teacher, method, tmp_path / name, settings, of, UNSEEN, None)
        there = work.data(lambda done, of: None, lambda done, of: None)
        train(work.run(work.roles(there), there), **more)
        return container.inspect(tmp_path / name / STATES / "step-00000009/state.safetensors").tensors()

    whole = run("whole", source(data))
    with pytest.raises(Killed):
        run("cut", source(data), watch=stopped)
    other = write(tmp_path / "other.npz", pictures(seed=1))
    for wrong, words in (
        (source(other), r"data\.digest is '\w+' there and '\w+' here"),
        (source(None), r"data\.kind is 'arrays' there and None here"),
        (source(data, mirror=True), r"data\.mirror is False there and True here"),
        (source(data, guidance=2.0), r"data\.guidance is 1\.0 there and 2\.0 here"),
    ):
        with pytest.raises(InvalidInput, match=words):
            run("cut", wrong)
    cut = run("cut", source(data))
    assert set(whole) == set(cut)
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_a_batch_has_the_labels_of_its_pictures_and_what_to_guide_by(teacher: Path, tmp_path: Path) -> None:
    images = pictures()
    images[:, 0, 0] = 0  # so that a mirrored one differs
    labelled = write(tmp_path / "labelled.npz", images, classes=2)
    work = Work.of(
        teacher, Adversarial(), tmp_path / "run", QUICK, source(labelled, guidance=2.0, mirror=True), UNSEEN, None
    )
    assert work.real is not None
    batch = work.real.batch([3, 0, COUNT + 3])
    assert batch.condition["label"].tolist() == [1, 0, 1]
    assert batch.negative is not None
    assert batch.negative["label"].tolist() == [tiny.CLASSES] * 3
    assert torch.equal(batch.data[0, 0], torch.from_numpy(images[3] * 2 - 1))
    assert torch.equal(batch.data[2], batch.data[0].flip(-1))
    assert (batch.noise, work.real.count, work.real.guided) == (None, 2 * COUNT, True)
    assert set(work.teacher.order.drawing.subjects) == {0, 1}  # what the data show, and no other class
    plain = Work.of(teacher, Adversarial(), tmp_path / "run", QUICK, source(labelled), UNSEEN, None).real
    assert plain is not None
    assert plain.batch([3, 0]).negative is None
    chosen = Work.of(teacher, Adversarial(), tmp_path / "run", QUICK, source(labelled, subjects=[2]), UNSEEN, None)
    assert chosen.teacher.order.drawing.subjects == (2,)


@pytest.mark.parametrize(
    "method",
    [
        Consistency(step=None, first=4, stages=1),
        ContinuousConsistency(velocity="data", derivative="difference"),
        MeanFlow(velocity="data", derivative="difference"),
        Progressive(begin=2, end=1),
        GuidanceInput(lowest=1, highest=3),
        LatentConsistency(),
        Policy(rows=2),
        Consistency(step="ddim", first=4, stages=1),
        ContinuousConsistency(matching=0.01, derivative="difference"),
    ],
    ids=lambda method: method.name,
)
def test_methods_that_learn_from_pictures_learn_from_data_alone(
    method: Any, teacher: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one picture of their batches is the teacher's."""
    seen: list[Tensor] = []
    real = type(method).losses

    def losses(self: Any, roles: Any, batch: Any, phase: Phase, draws: Any) -> Any:
        seen.append(batch.data)
        return real(self, roles, batch, phase, draws)

    monkeypatch.setattr(type(method), "losses", losses)
    of = source(data, guidance=2.0)
    work = Work.of(teacher, method, tmp_path / "run", Settings(steps=2, batch=8), of, UNSEEN, None)
    there = work.data(lambda done, of: None, lambda done, of: None)
    train(work.run(work.roles(there), there))
    known = torch.from_numpy(pictures() * 2 - 1)[:, None]
    assert all((known == one).flatten(1).all(1).any() for batch in seen for one in batch)
    assert not (tmp_path / "run/pairs").exists()


def captioned(folder: Path) -> Path:
    """Pictures with captions."""
    folder.mkdir()
    lines = []
    for number, text in enumerate(("a circle", "two stars", "a square")):
        Image.new("RGB", (40, 40), (80 * number, 200, 30)).save(folder / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def test_latents_are_encoded_once_and_captions_are_what_is_drawn_to_judge_by(tmp_path: Path) -> None:
    tiny_diffusers.write("sd", tmp_path / "sd")
    data, quick = captioned(tmp_path / "photos"), Settings(steps=1, batch=2)
    work = Work.of(tmp_path / "sd", Adversarial(), tmp_path / "run", quick, source(data, guidance=2.0), UNSEEN, None)
    assert sorted(work.teacher.order.drawing.subjects) == ["a circle", "a square", "two stars"]
    encoded: list[int] = []
    for _ in range(2):
        there = work.data(lambda done, of: None, lambda done, of: encoded.append(done))
    assert encoded == [3, 3]
    parts = list((tmp_path / "run/latents").iterdir())
    assert [part.name for part in parts] == ["000000000-3.safetensors"]
    states = container.inspect(parts[0]).tensors()["states"]
    assert torch.equal(there.batch([1]).data.cpu()[0], states[1])
    assert there.batch([1]).negative is not None
    train(work.run(work.roles(there), there))
    assert work.real is not None
    shown = torch.cat(list(work.real.shown(9, 2)))  # in pixels, as people see them
    assert shown.shape[1:] == torch.Size(work.teacher.pipe.model.codec.pixel_shape(there.batch([0]).data.shape[1:]))
    red = {"a circle": 0, "two stars": 80, "a square": 160}
    wanted = [red[text] / 127.5 - 1 for text in work.teacher.order.drawing.subjects]
    assert shown[:, 0].mean((1, 2)).tolist() == pytest.approx(wanted, abs=0.01)


def test_pictures_that_cannot_be_read_are_counted(teacher: Path, tmp_path: Path) -> None:
    data = captioned(tmp_path / "photos")
    (data / "metadata.jsonl").unlink()
    for number in range(tiny.CLASSES):
        (data / str(number)).mkdir()
        (data / f"{number}.png").rename(data / str(number) / "one.png")
    (data / "1/one.png").write_bytes(b"no picture")
    with pytest.warns(Skipped, match=r"1/one\.png"):
        work = Work.of(teacher, Adversarial(), tmp_path / "run", QUICK, source(data), UNSEEN, None)
    assert list(work.lost) == [1]


def test_a_forecast_counts_the_data_and_writes_nothing(teacher: Path, data: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    quick = Settings(steps=8, batch=4)
    needed = distillation.forecast(teacher, Adversarial(), tmp_path / "run", settings=quick, source=source(data))
    assert needed.samples == COUNT
    assert needed.data_bytes == 2 * (16 + 128) * 16 * 4  # what is drawn to judge by
    assert sorted(tmp_path.rglob("*")) == before


def no_labels(folder: Path) -> Source:
    return source(write(folder / "bad.npz", labels=False))


def another_size(folder: Path) -> Source:
    return source(write(folder / "bad.npz", pictures(size=6)))


def more_classes(folder: Path) -> Source:
    return source(write(folder / "bad.npz", classes=7))


def colours(folder: Path) -> Source:
    return source(write(folder / "bad.npz", np.repeat(pictures()[..., None], 3, axis=3)))


def captions(folder: Path) -> Source:
    return source(captioned(folder / "bad"))


def nothing(folder: Path) -> Source:
    return source(folder / "nothing")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_labels, "tiny is trained on 3 classes, and the data have no labels: give labels"),
        (another_size, r"a picture of numbers has shape \(1, 6, 6\), and the model takes \(1, 4, 4\)"),
        (more_classes, "tiny has 3 classes, and the data have 7"),
        (colours, r"a picture of numbers has shape \(3, 4, 4\), and the model takes \(1, 4, 4\)"),
        (captions, "tiny is trained on classes, and the data have captions"),
        (nothing, "unknown data"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_written(
    make: Callable[[Path], Source], words: str, teacher: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match=words):
        distillation.distill(teacher, Adversarial(), tmp_path / "run", settings=QUICK, source=make(tmp_path))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Regression(), "regression takes no real pictures, as it learns which noise becomes which picture"),
        (Endpoint(), "endpoint takes no real pictures"),
        (Phased(), "phased takes no real pictures"),
        (Reflow(), "reflow takes no real pictures"),
        (DistributionMatching(), "dmd takes no real pictures, as it shows pictures to a discriminator alone"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_methods_that_have_no_use_for_data_refuse_them(method: Any, words: str, data: Path, tmp_path: Path) -> None:
    of_flow = fs.zoo.Spec(tiny.network().config, "flow", fs.schedules.flow(), (-1.0, 1.0), {})
    fs.zoo.save(tmp_path / "flow.safetensors", tiny.network(), of_flow)
    with pytest.raises(InvalidInput, match=f"{words}.*dmd with adversary, add, policy, scm, meanflow"):
        Work.of(tmp_path / "flow.safetensors", method, tmp_path / "run", QUICK, source(data), UNSEEN, None)


def test_the_methods_that_are_said_to_take_data_do() -> None:
    made = {name: kind(adversary=0.1) if name == "dmd" else kind() for name, kind in METHODS.items()}  # type: ignore[call-arg]
    taking = {name for name, method in made.items() if not without_data(method)}
    assert taking == {words.split()[0] for words in suitability.TAKE_DATA}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data": "digits", "count": 5}, "with data the teacher draws no pictures to learn from, got count=5"),
        ({"mirror": True}, "mirror is True or False, and of data alone, got True without data"),
        ({"data": "digits", "mirror": 1}, "mirror is True or False"),
        ({"count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"held_out": None}, "held_out must be a whole number of at least 16"),
    ],
)
def test_sources_that_mean_nothing_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        Source(**settings)
