"""A student of a small model: written, loaded, drawn with, measured, and gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import fewstep as fs
from fewstep import InvalidInput, distillation, schedules
from fewstep.core.grid import grid_times
from fewstep.distillation import (
    Checks,
    Consistency,
    ContinuousConsistency,
    Distilled,
    DistributionMatching,
    Endpoint,
    LatentConsistency,
    MeanFlow,
    Measuring,
    Phased,
    Progressive,
    Reflow,
    Regression,
    Settings,
    Source,
    Watch,
)
from fewstep.distillation.methods.regression import unrolled
from fewstep.distillation.pictures import pairs as pairs_of
from fewstep.zoo import Spec, load, save
from models import tiny, tiny_diffusers

QUICK = Settings(steps=24, batch=16, rate=2e-3, state_every=8, log_every=8)
SOURCE = Source(count=64, steps=6, held_out=16, guidance=2.0)
LOOKS = Measuring(checks=Checks(every=8, count=16))


def distill(*args: Any, **more: Any) -> Distilled:
    """With few pictures to look at."""
    return distillation.distill(*args, **{"measuring": LOOKS, **more})


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny.safetensors")


METHODS: dict[str, Any] = {
    "regression": Regression(rows=2),
    "progressive": Progressive(begin=4, end=2),
    "consistency": Consistency(step="ddim", stages=2, first=4, rows=2),
    "scm": ContinuousConsistency(rows=2),
    "meanflow": MeanFlow(rows=2),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_student_is_a_model_that_draws_by_its_own_plan_without_guidance(
    name: str, teacher: Path, tmp_path: Path
) -> None:
    found = distill(teacher, METHODS[name], tmp_path / "run", settings=QUICK, source=SOURCE)
    assert found.path == tmp_path / "run/student.safetensors"
    images = fs.load(found.path)([0, 2, 1], seed=5)
    assert images.drawing.guidance.scale == 1
    assert images.drawing.sampling.plan == METHODS[name].plan(fs.load(teacher).model.denoiser())
    assert images.nfe == 2
    assert fs.load(found.path).model.digest != fs.load(teacher).model.digest
    assert torch.equal(images.tensor, found.pipe([0, 2, 1], seed=5).tensor)


def test_regression_brings_the_student_nearer_to_the_teacher(teacher: Path, tmp_path: Path) -> None:
    errors = []
    for steps in (1, 150):
        settings = replace(QUICK, steps=steps)
        found = distill(teacher, Regression(), tmp_path / str(steps), settings=settings, source=SOURCE)
        errors.append(found.report.student.error.value)  # type: ignore[union-attr]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("kind", ["dit", "ddpm"])
def test_a_student_of_any_folder_draws_by_its_plan(kind: str, tmp_path: Path) -> None:
    tiny_diffusers.write(kind, tmp_path / kind)
    source = replace(SOURCE, count=16, guidance=None, steps=3)
    found = distill(
        tmp_path / kind, Regression(rows=2), tmp_path / "run", settings=replace(QUICK, steps=1), source=source
    )
    images = fs.load(found.path)()
    assert images.nfe == 2
    assert images.drawing.sampling.name == "ddim-2"
    assert images.drawing.guidance.scale == 1


def test_guidance_of_a_student_is_refused_and_its_teacher_named(teacher: Path, tmp_path: Path) -> None:
    found = distill(teacher, Regression(), tmp_path / "run", settings=replace(QUICK, steps=1), source=SOURCE)
    for pipe in (found.pipe, fs.load(found.path)):
        with pytest.raises(
            InvalidInput, match=r"a student with guidance 2 inside.*or use its teacher, tiny, for other"
        ):
            pipe([1], guidance=3.0)
        with pytest.raises(InvalidInput, match="a student with guidance 2 inside, and has no negative branch"):
            pipe([1], negative=0)
        with pytest.raises(InvalidInput, match="a student with guidance 2 inside"):
            pipe.denoiser([1], guidance=fs.Guidance(1.5, interval=(0.2, 5)))
    assert found.pipe([1], guidance=1.0).nfe == 1


def test_steps_of_a_student_without_a_sampler_are_refused(teacher: Path, tmp_path: Path) -> None:
    pipe = distill(teacher, Regression(), tmp_path / "run", settings=replace(QUICK, steps=1), source=SOURCE).pipe
    with pytest.raises(InvalidInput, match=r"draws by a plan of its own, which decides steps.*name a sampler too"):
        pipe([1], steps=5)
    assert pipe([1], steps=5, sampler="ddim").nfe == 5
    assert pipe([1], sampler="ddim", sampling={"times": [900.0, 400.0, -1.0]}).nfe == 2


def test_a_student_is_a_teacher_too_by_its_own_plan_or_in_steps(tmp_path: Path) -> None:
    """As reflow before regression needs."""
    net = tiny.network()
    save(tmp_path / "flow.safetensors", net, Spec(net.config, "flow", schedules.flow(), (-1.0, 1.0), {}))
    quick = replace(QUICK, steps=1)
    straight = distill(tmp_path / "flow.safetensors", Reflow(rows=3), tmp_path / "a", settings=quick, source=SOURCE)
    own = pairs_of.Teacher.of(straight.pipe, None, None, None).order.plan
    assert own == Reflow(rows=3).plan(straight.pipe.model.denoiser())
    more = pairs_of.Teacher.of(straight.pipe, None, None, 9).order.plan
    assert (more.recipe.sampler, len(more.rows)) == ("ddim", 9)
    source = replace(SOURCE, guidance=None, steps=5)
    found = distill(straight.path, Regression(), tmp_path / "b", settings=quick, source=source)
    assert found.pipe([1]).nfe == 1
    with pytest.raises(InvalidInput, match="a student with guidance 2 inside"):
        distill(straight.path, Regression(), tmp_path / "c", settings=quick, source=SOURCE)


@pytest.mark.parametrize(
    "method",
    [
        Regression(rows=2, grid="karras"),
        Progressive(begin=4, end=2, grid="karras"),
        Consistency(step="ddim", stages=1, first=4, rows=2),
        LatentConsistency(rows=2),
    ],
    ids=lambda method: method.name,
)
def test_a_student_of_an_edm_teacher_keeps_its_preconditioning(method: Any, tmp_path: Path) -> None:
    net = tiny.network()
    spec = Spec(net.config, "edm", schedules.edm(), (-1.0, 1.0), {}, sigma_data=0.6)
    save(tmp_path / "edm.safetensors", net, spec)
    found = distill(tmp_path / "edm.safetensors", method, tmp_path / "run", settings=QUICK, source=SOURCE)
    model = fs.load(found.path).model
    assert (model.prediction, model.schedule, model.sigma_data) == ("edm", spec.schedule, 0.6)
    assert found.pipe([1]).nfe == 2
    assert pairs_of.Teacher.of(found.pipe, None, None, 9).order.plan.recipe.grid == "karras"


def test_on_an_edm_schedule_lcm_learns_the_times_of_karras() -> None:
    schedule = schedules.edm()
    assert LatentConsistency().times(schedule).tolist() == grid_times("karras", schedule, 50).tolist()
    assert LatentConsistency().times(schedules.flow())[-2] == pytest.approx(1 / 50)


def test_guidance_that_training_does_not_know_is_refused(tmp_path: Path) -> None:
    tiny_diffusers.write("sd", tmp_path / "sd")
    (tmp_path / "sd/fewstep.json").write_text('{"guidance": {"scale": 5, "interval": [0.3, 6.0]}}')
    source = replace(SOURCE, subjects=("a circle",), guidance=None, count=16)
    with pytest.raises(InvalidInput, match=r"recommends cfg from 0\.3 to 6 in sigma / alpha: use regression"):
        distill(tmp_path / "sd", Consistency(), tmp_path / "run", settings=QUICK, source=source)
    assert not (tmp_path / "run").exists()
    distill(tmp_path / "sd", Regression(), tmp_path / "run", settings=replace(QUICK, steps=1), source=source)


def test_a_student_begins_with_the_weights_of_another(teacher: Path, tmp_path: Path) -> None:
    first = distill(teacher, Regression(), tmp_path / "first", settings=QUICK, source=SOURCE)
    begun = replace(SOURCE, begin=first.path)
    still = replace(QUICK, steps=1, rate=0.0, width=0)
    second = distill(
        teacher, Consistency(step="ddim", stages=1, rows=1), tmp_path / "run", settings=still, source=begun
    )
    weights, others = (found.pipe.model.module.state_dict() for found in (first, second))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    facts = json.loads((tmp_path / "run/states/step-00000001/manifest.json").read_text())
    assert facts["run"]["begins"] == first.pipe.model.digest
    with pytest.raises(InvalidInput, match="begins"):
        distill(teacher, Consistency(step="ddim", stages=1, rows=1), tmp_path / "run", settings=still, source=SOURCE)


def test_weights_that_a_student_cannot_begin_with_are_refused(teacher: Path, tmp_path: Path) -> None:
    other, net = tmp_path / "other.safetensors", tiny.network()
    save(other, net, Spec(net.config, "epsilon", schedules.linear(), (-1.0, 1.0), {}))
    with pytest.raises(InvalidInput, match="other predicts epsilon, tiny v_prediction: begin with a student of that"):
        distill(teacher, Regression(), tmp_path / "run", source=replace(SOURCE, begin=other))
    wide = tiny.write(tmp_path / "wide.safetensors", channels=3)
    with pytest.raises(InvalidInput, match="wide is of another network than the student: they differ in"):
        distill(teacher, Regression(), tmp_path / "run", source=replace(SOURCE, begin=wide))
    adapted = replace(QUICK, adapter=distillation.Adapter(rank=2))
    with pytest.raises(InvalidInput, match="a LoRA is a change of the teacher"):
        distill(teacher, Regression(), tmp_path / "run", settings=adapted, source=replace(SOURCE, begin=teacher))
    assert not (tmp_path / "run").exists()


def test_a_student_of_a_folder_keeps_what_else_its_teacher_recommends_and_no_more(tmp_path: Path) -> None:
    place = tmp_path / "sd"
    tiny_diffusers.write("sd", place)
    (place / "fewstep.json").write_text('{"clip_skip": 1, "guidance": {"scale": 3}}')
    (place / "sd.safetensors").write_bytes(b"whole")
    (place / "LICENSE").write_text("free")
    source = Source(subjects=("a circle",), count=16, held_out=16, steps=3)
    found = distill(place, Regression(), place / "runs", settings=replace(QUICK, steps=1), source=source)
    told = json.loads((found.path / "fewstep.json").read_text())
    assert (told["clip_skip"], told["guidance"]) == (1, {"scale": 1.0})
    names = {one.name for one in found.path.iterdir()}
    assert {"unet", "vae", "text_encoder", "tokenizer", "scheduler", "model_index.json", "LICENSE"} < names
    assert not names & {"runs", "sd.safetensors"}


def test_subjects_of_another_kind_are_refused(teacher: Path, tmp_path: Path) -> None:
    tiny_diffusers.write("sd", tmp_path / "sd")
    words = fs.load(tmp_path / "sd")
    for subjects, got in ((None, "none"), ((), "none"), ((3,), "labels"), (("a circle", 3), "labels")):
        with pytest.raises(InvalidInput, match=f"sd draws from words, .* got {got}: give prompts"):
            pairs_of.Teacher.of(words, subjects, None, None)
    with pytest.raises(InvalidInput, match="tiny draws classes, and got prompts: give labels"):
        pairs_of.Teacher.of(fs.load(teacher), ("a circle",), None, None)


def test_pictures_without_a_condition_among_others_are_learnt_from(teacher: Path, tmp_path: Path) -> None:
    """A batch of them alone has no negative of its own."""
    of = pairs_of.Teacher.of(fs.load(teacher), (None, 1), 2.0, 3)
    found = pairs_of.drawn(of, 4, tmp_path)
    alone, mixed = found.batch([0, 2]), found.batch([0, 1])
    assert alone.negative is not None
    assert mixed.negative is not None
    assert alone.negative["label"].tolist() == alone.condition["label"].tolist() == [tiny.CLASSES] * 2
    assert mixed.condition["label"].tolist() == [tiny.CLASSES, 1]
    assert mixed.negative["label"].tolist() == [tiny.CLASSES] * 2


def test_pictures_that_are_not_finite_are_named_by_subject_and_not_kept(tmp_path: Path) -> None:
    path = tiny.broken(tmp_path / "broken.safetensors")
    with pytest.raises(InvalidInput, match=r"5 of 16 pictures of the teacher are NaN or infinite, of \[2\]: leave"):
        distill(path, Regression(), tmp_path / "run", settings=QUICK, source=replace(SOURCE, count=16))
    assert not list((tmp_path / "run/pairs").iterdir())


def test_many_long_prompts_are_learnt_from(tmp_path: Path) -> None:
    """Of one image at a time, whatever their number, and named by a digest in what is written."""
    tiny_diffusers.write("sd", tmp_path / "sd")
    prompts = tuple(f"{number} {'red circle ' * 4}" for number in range(300))
    of = pairs_of.Teacher.of(fs.load(tmp_path / "sd"), prompts, 2.0, 2)
    assert len(json.dumps(of.identity)) < 300
    other = pairs_of.Teacher.of(of.pipe, (*prompts[:-1], "blue"), 2.0, 2)
    assert other.identity != of.identity
    large = replace(of.pipe.model, sizes=replace(of.pipe.model.sizes, height=1 << 10, width=1 << 10))
    assert len(pairs_of.Teacher.of(replace(of.pipe, model=large), prompts, 2.0, 2).order.drawing) == 300


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-40],
        lambda content: b"",
        lambda content: content.replace(b"states", b"stated", 1),
        lambda content: content.replace(b"pairs", b"pears", 1),
        lambda content: content.replace(b"[64,1,4,4]", b"[32,2,4,4]", 1),
    ],
)
def test_a_damaged_part_is_named_with_what_to_do(
    damage: Callable[[bytes], bytes], teacher: Path, tmp_path: Path
) -> None:
    of = pairs_of.Teacher.of(fs.load(teacher), None, 2.0, 6)
    whole = pairs_of.drawn(of, 64, tmp_path).states(range(64))
    part = tmp_path / "000000000-64.safetensors"
    content = part.read_bytes()
    assert damage(content) != content
    part.write_bytes(damage(content))
    with pytest.raises(InvalidInput, match=r"000000000-64.safetensors is damaged .*: remove it, and it is drawn again"):
        pairs_of.drawn(of, 64, tmp_path)
    part.unlink()
    assert torch.equal(pairs_of.drawn(of, 64, tmp_path).states(range(64)), whole)


def test_pairs_of_several_parts_are_found_by_number(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = pairs_of.Teacher.of(fs.load(teacher), [0, 2], 2.0, 3)
    one = pairs_of.drawn(of, 11, tmp_path / "one")
    monkeypatch.setattr(pairs_of, "PART", 4)
    several = pairs_of.drawn(of, 11, tmp_path / "several")
    assert [len(part) for part in several.parts] == [4, 4, 3]
    assert several.count == 11
    numbers = [10, 0, 5, 7]
    assert torch.allclose(one.batch(numbers).data, several.batch(numbers).data, atol=1e-5)
    assert torch.equal(one.batch(numbers).noise, several.batch(numbers).noise)  # type: ignore[arg-type]


def test_a_teacher_without_classes_or_words_is_distilled(tmp_path: Path) -> None:
    """None is no condition, which nothing guides: one evaluation a row, of the student and of its rivals."""
    source = replace(SOURCE, subjects=(None,), count=4)
    path = tiny.write(tmp_path / "tiny.safetensors")
    quick = replace(QUICK, steps=2, batch=8)  # more than there are pictures
    for method in (Regression(), Consistency(first=4, stages=1), Progressive(begin=2, end=1)):
        found = distill(path, method, tmp_path / method.name, settings=quick, source=source)
        assert [line.nfe for line in found.report.rivals if line.at == 1] == [1] * (len(found.report.rivals) // 2)
        assert found.report.student.nfe == 1


def test_a_folder_that_cannot_be_written_is_named(teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        distill(teacher, Regression(), tmp_path / "file/run", settings=QUICK, source=SOURCE)


def test_a_student_of_a_folder_keeps_the_other_parts(tmp_path: Path) -> None:
    tiny_diffusers.write("sd", tmp_path / "sd")
    source = replace(SOURCE, subjects=("a circle", "two stars"), count=32)
    found = distill(tmp_path / "sd", Regression(), tmp_path / "run", settings=replace(QUICK, steps=4), source=source)
    assert found.path == tmp_path / "run/student"
    pipe = fs.load(found.path)
    assert pipe("a circle").nfe == 1
    assert (found.path / "model_index.json").read_bytes() == (tmp_path / "sd/model_index.json").read_bytes()
    assert json.loads((found.path / "distillation.json").read_text())["method"]["name"] == "regression"
    encoders = [folder / "text_encoder/model.safetensors" for folder in (found.path, tmp_path / "sd")]
    assert encoders[0].read_bytes() == encoders[1].read_bytes()
    with pytest.raises(InvalidInput, match="progressive needs"):
        distill(tmp_path / "sd", Progressive(begin=4), tmp_path / "other", settings=QUICK, source=source)


class Killed(BaseException):
    """Not an Exception, as a kill is none."""


@pytest.mark.parametrize("name", ["regression", "progressive"])
def test_a_run_goes_on_to_the_same_student(name: str, teacher: Path, tmp_path: Path) -> None:
    whole = distill(teacher, METHODS[name], tmp_path / "whole", settings=QUICK, source=SOURCE)
    count = 0

    def killed(*_: Any) -> None:
        nonlocal count
        count += 1
        if count in (1, 3, 4):
            raise Killed

    student = None
    while student is None:
        try:
            watch = Watch(killed, killed)
            student = distill(teacher, METHODS[name], tmp_path / "killed", settings=QUICK, source=SOURCE, watch=watch)
        except Killed:
            continue
    assert count > 4
    assert student.pipe.model.digest == whole.pipe.model.digest
    assert student.report.lines == whole.report.lines
    assert student.report.step == whole.report.step


def test_pairs_of_another_teacher_are_refused(teacher: Path, tmp_path: Path) -> None:
    distill(teacher, Regression(), tmp_path / "run", settings=replace(QUICK, steps=2), source=SOURCE)
    other = replace(SOURCE, guidance=3.0)
    with pytest.raises(InvalidInput, match="holds pairs of another teacher, plan, guidance or other subjects"):
        distill(teacher, Regression(), tmp_path / "run", settings=replace(QUICK, steps=2), source=other)


def test_the_teacher_stays_as_it_is(teacher: Path, tmp_path: Path) -> None:
    pipe = fs.load(teacher)
    before = pipe([1], seed=3).tensor
    distill(teacher, Progressive(begin=8, end=1, longer=1), tmp_path / "run", settings=QUICK, source=SOURCE)
    assert torch.equal(before, fs.load(teacher)([1], seed=3).tensor)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Regression(rows=0), "rows must be a whole number from 1 to 8"),
        (lambda: Regression(sampler="dddim"), "did you mean 'ddim'"),
        (lambda: Progressive(begin=6, end=4), "begin must be end times 2, 4, 8"),
        (lambda: Progressive(begin=8, end=8), "begin must be end times 2, 4, 8"),
        (lambda: Progressive(weight="snr"), "did you mean 'snr\\+1'"),
        (lambda: Consistency(step="euler"), "unknown step of the teacher"),
        (lambda: Consistency(gap="shrinking", deviation=0), "deviation above 0"),
        (lambda: Consistency(huber="small"), "huber must be a number of at least 0, got 'small'"),  # type: ignore[arg-type]
        (lambda: Consistency(q=float("nan")), "q must be a finite number above zero, got nan"),
        (lambda: Consistency(least=0), "least must be a finite number above zero, got 0"),
        (lambda: Consistency(least=90), "least must be below 80"),
        (lambda: Consistency(stages=40), "doubles 39 times has more than 65,536"),
        (lambda: Reflow(rows=0), "rows must be"),
        (lambda: Source(held_out=2), "held_out must be a whole number of at least 16"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        make()


def test_methods_that_do_not_fit_are_refused_before_anything_is_drawn(teacher: Path, tmp_path: Path) -> None:
    for method, words in (
        (Reflow(), "reflow needs a network that predicts flow"),
        (Regression(rows=4, sampler="heun"), "does not take 4 rows in 4 steps"),
        (Regression(rows=2, sampler="euler-a"), "draws noise"),
    ):
        with pytest.raises(InvalidInput, match=words):
            distill(teacher, method, tmp_path / "run", settings=QUICK, source=SOURCE)
    with pytest.raises(InvalidInput, match="too few for 4 rounds"):
        distill(teacher, Progressive(), tmp_path / "run", settings=replace(QUICK, steps=3), source=SOURCE)
    with pytest.raises(InvalidInput, match="is neither a shipped model"):
        distill(tmp_path / "nothing", Regression(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_draws_noise_on_the_way_gives_no_pairs(tmp_path: Path) -> None:
    """The same noise is another picture each time, and a student would learn their mean."""
    recommended = {"sampling": {"sampler": "ddpm"}, "guidance": {"scale": 2.0}}
    facts = {"recommended": recommended}
    loaded = load(tiny.write(tmp_path / "tiny.safetensors"))
    path = tmp_path / "noisy.safetensors"
    save(path, loaded.network, replace(loaded.spec, training=facts))
    for method in (Regression(), Endpoint(), Phased(plans=(2,))):
        with pytest.raises(InvalidInput, match=f"{method.name} learns which noise becomes.*by ddpm: have it recommend"):
            distill(path, method, tmp_path / "run", settings=QUICK, source=SOURCE)
    student_of_it = distill(path, DistributionMatching(rows=2), tmp_path / "dmd", settings=QUICK, source=SOURCE).path
    with pytest.raises(InvalidInput, match="by consistency: give steps, in which it draws by ddim"):
        distill(
            student_of_it,
            Regression(),
            tmp_path / "run",
            settings=QUICK,
            source=replace(SOURCE, steps=None, guidance=1.0),
        )
    assert not (tmp_path / "run").exists()


def test_a_plan_unrolled_is_what_the_driver_draws(teacher: Path) -> None:
    """For samplers with history and several registers."""
    pipe = fs.load(teacher)
    denoiser = pipe.denoiser([0, 1], guidance=1)
    noise = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    for sampler in ("ddim", "dpmpp-3m", "unipc-3", "ipndm-4", "heun"):
        plan = fs.compile(sampler, schedule=pipe.model.schedule, steps=5, grid="quadratic")
        start = noise * plan.entry[1]
        with torch.no_grad():
            own = unrolled(plan, denoiser, start)
        assert torch.allclose(own, fs.sample(plan, denoiser, start=start), atol=1e-4)


def test_subjects_come_in_turn_with_noise_by_number(teacher: Path, tmp_path: Path) -> None:
    of = pairs_of.Teacher.of(fs.load(teacher), [2, 0], 2.0, 6)
    found = pairs_of.drawn(of, 6, tmp_path / "pairs")
    batch = found.batch([3, 0])
    assert batch.condition["label"].tolist() == [0, 2]
    assert batch.negative is not None
    assert batch.negative["label"].tolist() == [tiny.CLASSES] * 2
    again = of.pipe.denoiser([0, 2], guidance=2.0)
    assert batch.noise is not None
    assert torch.allclose(
        batch.data, fs.sample(of.order.plan, again, start=batch.noise * of.order.plan.entry[1]), atol=1e-5
    )
