"""The guidance scale by measurement, on models whose right scale is known."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import fewstep as fs
from fewstep.benchmark import Budget, Evidence, Pictures, Reporter, ScaleSearch, batches, choose, rounds
from fewstep.benchmark.search import find_scale
from fewstep.benchmark.settings import SILENT
from fewstep.benchmark.subject import Subject
from fewstep.measure.adherence import mean_score
from models.tiny import broken

from .guided import MEAN, PROMPTS, of_classes, of_words, real
from .tiny import solved_once

BUDGET = Budget(rows=6)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    solved_once(monkeypatch)
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    return tmp_path / "out"


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each drawing of the measuring had, those of pilots not among them."""
    found: list[int] = []
    original = batches.draw

    def draw(problem: Any, plan: fs.Plan, part: Any, decode: Any) -> batches.Drawn:
        found.extend([len(part)] * (len(plan.rows) > 1))
        return original(problem, plan, part, decode)

    monkeypatch.setattr(batches, "draw", draw)
    return found


def search(pipe: Any, place: Path, budget: Budget = BUDGET, seconds: float = 600.0, **more: Any) -> Any:
    pictures = Pictures(more.pop("images", 32), 16, prompts=more.pop("prompts", None))
    reporter = more.pop("reporter", SILENT)
    return find_scale(Subject(pipe, pictures), budget, ScaleSearch(**more), place, seconds, reporter)


@pytest.mark.parametrize("right", [1.0, 3.0, 5.0])
def test_the_scale_whose_pictures_are_those_of_the_data_is_taken(place: Path, right: float) -> None:
    found = search(of_classes(), place, data=real(right * MEAN))
    assert (found.scale, found.verdict.best) == (right, right)
    assert [rung.scale for rung in found.verdict.rungs] == [1, 1.5, 2, 3, 4, 5, 7.5, 10]
    assert [rung.nfe for rung in found.verdict.rungs] == [6.0] + [12.0] * 7
    near = next(rung for rung in found.verdict.rungs if rung.scale == right)
    assert near.figure.low <= near.figure.value <= near.figure.high
    assert found.verdict.words[0].startswith(f"Guidance {right:g} has the best kernel distance")


def test_the_intervals_hold_on_other_noise(place: Path) -> None:
    """Of 24 measurements of 32 images, against one of 1,024: intervals of 95%."""
    pipe, data, held, sure = of_classes(), real(2.6 * MEAN), 0, 0
    large = search(pipe, place, images=1024, data=data, scales=(3,))
    truth = {rung.scale: rung for rung in large.verdict.rungs}
    assert large.verdict.as_good == (3.0,)  # which few images seldom tell from 2, the model's own
    assert truth[2.0].images < 1024
    for seed in range(1, 25):
        subject = Subject(pipe, Pictures(32, 16, seed))
        verdict = find_scale(subject, BUDGET, ScaleSearch((3,), data=data), place, 600.0, SILENT).verdict
        assert verdict is not None
        figure = verdict.rungs[1].figure
        assert figure is not None
        held += figure.low <= truth[3.0].figure.value <= figure.high
        sure += 3.0 in verdict.as_good
    assert held >= 21
    assert sure >= 22


def test_the_lowest_of_the_scales_that_are_as_good_is_taken(place: Path) -> None:
    """Data between two scales is as near to both."""
    found = search(of_classes(), place, data=real(2.5 * MEAN), scales=(1, 2, 3))
    assert found.verdict.as_good == (2.0, 3.0)
    assert found.scale == 2.0
    assert found.words[1].startswith("As good within noise, by paired differences of the same 32 images, at 95%: ")
    assert found.words[2] == "Guidance 2 is taken, the lowest of them"


def test_the_models_own_scale_stays_where_no_scale_is_told_from_another(place: Path) -> None:
    found = search(of_classes(), place, data=real(2 * MEAN), scales=(1.99, 2.01))
    assert found.verdict.as_good == (1.99, 2.0, 2.01)
    assert (found.scale, found.verdict.own) == (2.0, 2.0)
    assert found.words[-1] == "32 images cannot tell any of these scales apart: guidance 2 stays; draw more"


def test_scales_that_are_far_behind_are_not_drawn_further(place: Path, draws: list[int]) -> None:
    found = search(of_classes(), place, data=real(3 * MEAN), images=64)
    rungs = {rung.scale: rung for rung in found.verdict.rungs}
    assert (rungs[3.0].images, rungs[3.0].dropped) == (64, False)
    assert (rungs[10.0].images, rungs[10.0].dropped) == (16, True)
    assert rungs[10.0].behind.low > 0
    assert sum(draws) == sum(rung.images for rung in found.verdict.rungs)


def test_what_is_kept_is_not_drawn_again_and_more_images_go_on_from_it(place: Path, draws: list[int]) -> None:
    how: dict[str, Any] = {"data": real(2.5 * MEAN), "scales": (2, 3)}
    first = search(of_classes(), place, **how)
    assert sum(draws) == 64
    told: list[Any] = []
    silent = Reporter(begin=lambda *said: told.append(said), announce=told.append)
    assert search(of_classes(), place, reporter=silent, **how).to_json() == first.to_json()
    assert (sum(draws), told) == (64, [])
    more = search(of_classes(), place, images=40, reporter=silent, **how)
    assert more.verdict.rung.images == 40
    assert sum(draws) == 64 + 2 * 8
    assert "not all guidance scales are measured by kernel distance" in told[0][0]
    assert (told[1].left, told[1].kept, told[1].images) == (2, 0, 40)
    again = search(of_classes(), place, images=48, **how)  # the last batch was not full
    assert again.verdict.rung.images == 48
    assert sum(draws) == 80 + 2 * 16
    kept = next((place / "guidance").iterdir())
    kept.write_bytes(kept.read_bytes()[:-1])
    with pytest.raises(fs.InvalidInput, match=r"Delete .*safetensors, and it is measured again"):
        search(of_classes(), place, **how)


def test_time_that_is_short_costs_images_and_claims_no_best_scale(place: Path, draws: list[int]) -> None:
    own = of_classes().model.recommended["guidance"]["scale"]
    found = search(of_classes(), place, data=real(3 * MEAN), seconds=1e-9)
    assert (found.scale, found.verdict) == (own, None)
    assert draws == [16]
    assert found.why.startswith("No guidance scale is chosen: 0 of 32 images were drawn at each scale in the time")
    assert "missing at 1.5, 2, 3, 4, 5, 7.5, 10" in found.why
    assert search(of_classes(), place, data=real(3 * MEAN), seconds=1e-9).verdict is None
    assert draws == [16, 16]  # one batch a call, so that the same limit ends


def test_a_search_that_is_cut_short_keeps_the_models_own_scale_unless_it_is_surely_worse(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1_000_000))
    monkeypatch.setattr(rounds, "time", SimpleNamespace(monotonic=lambda: 0 if next(calls) < 4 else 1e9))
    monkeypatch.setattr("fewstep.benchmark.search.time", SimpleNamespace(monotonic=lambda: 0.0))
    pictures = Pictures(64, 16)
    for target, scale in ((2.0, 2.0), (3.0, 3.0)):
        calls = iter(range(1_000_000))
        found = find_scale(
            Subject(of_classes(), pictures), BUDGET, ScaleSearch((1.9, 3), data=real(target * MEAN)),
            place / str(target), 600.0, SILENT,
        )  # fmt: skip
        assert found.verdict is not None
        assert found.verdict.cut
        assert found.scale == scale
        said = next(words for words in found.words if words.startswith("This is not the best for sure: "))
        assert "of 64 images were drawn at each scale in the time that there was" in said


def test_a_search_that_was_interrupted_goes_on_in_the_folder_that_was_given(
    place: Path, draws: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    how = ScaleSearch((2, 3), data=real(3 * MEAN))
    evidence = Evidence(results=["new"], images=16, seconds=600)

    def stop(*_: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fewstep.benchmark.choice.measure_sweep", stop)
        with pytest.raises(KeyboardInterrupt):
            choose(of_classes(), Budget(rows=2), guidance=how, evidence=evidence)
    assert draws == [16, 16]
    draws.clear()
    answer = choose(of_classes(), Budget(rows=2), guidance=how, evidence=evidence)
    assert answer.guidance is not None
    assert answer.guidance.scale == answer.chosen.guidance == 3.0
    assert draws.count(16) == len(draws)
    swept = len(draws)
    choose(of_classes(), Budget(rows=2), guidance=how, evidence=evidence)
    assert len(draws) == swept  # nothing twice
    assert sorted(path.name for path in Path("new").iterdir() if path.is_dir()) == ["converged", "guidance", "pictures"]


class Peak:
    """A yardstick that is right of pictures whose mean is near that of a scale."""

    name, digest, least = "adherence", "peak", 2

    def __init__(self, scale: float):
        self.mean = scale * MEAN

    def read(self, pictures: Tensor, subjects: Any) -> Tensor:
        return ((pictures.mean(dim=(1, 2, 3)) - self.mean).abs() < 0.04).double()[:, None]

    def figure(self, values: Tensor, subjects: Any, bootstrap: Any = None) -> Any:
        more = {} if bootstrap is None else {"bootstrap": bootstrap}
        return mean_score("adherence", values[:, 0], **more)


def test_adherence_that_peaks_at_a_scale_is_found(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fewstep.benchmark.search.yardstick_of", lambda *given: Peak(4.0))
    found = search(of_classes(), place)
    assert (found.scale, found.verdict.as_good) == (4.0, (4.0,))
    assert found.verdict.rung.figure.value > 0.9
    assert "%" in found.words[0]


def test_a_budget_of_evaluations_gives_the_unguided_scale_twice_the_rows(place: Path) -> None:
    found = search(of_classes(), place, Budget(nfe=8), data=real(MEAN), scales=(1, 2))
    assert [(rung.rows, rung.nfe) for rung in found.verdict.rungs] == [(8, 8.0), (4, 8.0)]
    alone = search(of_classes(), place, Budget(nfe=1), data=real(MEAN), scales=(1, 2))
    assert (alone.scale, len(alone.verdict.rungs)) == (1.0, 1)
    assert alone.notes == ["Guidance 2 does not fit at most NFE 1, as a guided row takes 2 evaluations"]


def test_a_negative_prompt_that_helps_is_offered_and_others_are_not(place: Path) -> None:
    """Away from "lower" the mean is 0.4 at scale 3, as that of the data; away from nothing 0.3."""
    texts = ("same", "higher", "lower")
    words = {"prompts": "prompts.txt", "data": real(0.4), "scales": (2, 3), "negative": texts}
    found = search(of_words(), place, **words)
    assert found.scale == 3.0
    assert found.negative == "lower"
    gains = {one.text: one.gain for one in found.negatives.tried}
    assert gains["same"][:3] == (0.0, 0.0, 0.0)
    assert gains["higher"].high < 0 < gains["lower"].low
    assert [one.helps for one in found.negatives.tried] == [False, False, True]
    assert found.negatives.confidence == pytest.approx(1 - 0.05 / 3)
    assert found.words[-1].startswith('The negative prompt "lower" helps: kernel distance is better by ')
    late = search(of_words(), place / "late", seconds=1e-9, **words)
    assert late.words[-1] == "No negative prompt was measured, as the scales took all of the time"
    without = search(of_words(), place, **{**words, "negative": ("same", "higher")})
    assert without.negative is None
    assert without.words[-1].startswith("No negative prompt helps: none of the intervals of their gains lies above 0")
    told = replace(of_words().model, conditioner=replace(of_words().model.conditioner, distilled=True))  # type: ignore[type-var]
    with pytest.raises(fs.InvalidInput, match=r"--negative cannot act on .*, which is told its guidance scale"):
        search(replace(of_words(), model=told), place / "told", **words)
    own = search(replace(of_words(), model=told), place / "told", **{**words, "negative": ()})
    assert own.words[-1] == "Nothing is guided away from: the network is told its guidance scale"
    at_one = search(of_words(), place, **{**words, "data": real(0.1), "scales": (1, 2)})
    assert (at_one.scale, at_one.negative) == (1.0, None)
    assert at_one.words[-1] == "Guidance 1 guides away from nothing: no negative prompt acts"


def test_the_lines_carry_the_scale_and_the_negative_prompt_and_draw(place: Path) -> None:
    evidence = Evidence(prompts="prompts.txt", images=16, seconds=600)
    how = ScaleSearch((2, 3), ("same", "lower"), data=real(0.4))
    pipe = of_words()
    answer = choose(pipe, Budget(rows=2), guidance=how, evidence=evidence)
    assert answer.chosen.guidance == 3.0
    assert answer.lines.python.endswith('guidance=3.0, negative="lower")')
    assert "the samplers were compared without the negative prompt" in answer.notes
    document = answer.to_json()["guidance"]
    assert (document["scale"], document["negative"], document["sampler"]) == (3.0, "lower", "ipndm-3 on quadratic")
    assert [rung["scale"] for rung in document["verdict"]["scales"]] == [2.0, 3.0]
    assert document["verdict"]["scales"][0]["figure"]["measure"] == "kernel distance"
    drawn = eval(answer.lines.python.removeprefix("images = ").replace("PROMPT", "grey"), {"pipe": pipe})
    assert float(drawn.tensor.mean()) == pytest.approx(0.4, abs=0.05)


def test_the_time_is_shared_with_the_samplers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def found(subject: Any, budget: Any, how: Any, where: Any, seconds: float, reporter: Any) -> Any:
        given.append(seconds)
        return SimpleNamespace(scale=3.0, negative=None, to_json=dict)

    monkeypatch.setattr("fewstep.benchmark.choice.find_scale", found)
    clock = iter([0.0, *[30.0] * 100])
    monkeypatch.setattr("fewstep.benchmark.choice.time", SimpleNamespace(monotonic=lambda: next(clock)))
    swept: list[float] = []

    def sweep(*_: Any, seconds: float, **more: Any) -> Any:
        swept.append(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr("fewstep.benchmark.choice.measure_sweep", sweep)
    with pytest.raises(KeyboardInterrupt):
        choose(of_classes(), BUDGET, guidance="auto", evidence=Evidence(seconds=50))
    assert (given, swept) == ([25.0], [20.0])


def test_a_scale_that_loses_images_is_out(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = batches.draw

    def draw(problem: Any, *more: Any) -> batches.Drawn:
        found = original(problem, *more)
        return found._replace(pictures=found.pictures * (float("nan") if problem.settings["guidance"] == 3 else 1))

    monkeypatch.setattr(batches, "draw", draw)
    found = search(of_classes(), place, data=real(3 * MEAN), scales=(2, 3))
    assert found.scale == 2.0
    lost = found.verdict.rungs[1]
    assert (lost.lost, lost.figure, lost.dropped) == (16, None, True)


def test_a_model_that_draws_nothing_finite_has_no_scale(place: Path) -> None:
    broken(Path("broken.safetensors"), everything=True)
    with pytest.raises(
        fs.InvalidInput, match="no guidance scale has the figure 'kernel distance', as images that were"
    ):
        search("broken.safetensors", place, data=torch.zeros(16, 1, 4, 4), scales=(1, 2), images=16)


def unguided() -> Any:
    spec = fs.NetworkSpec(fs.schedules.linear(), "epsilon", (1, 2, 2), digest="u")
    return fs.load(lambda x, t: x, spec=spec)


@pytest.mark.parametrize(
    ("source", "guidance", "evidence", "message"),
    [
        (of_classes, "auto", {"seconds": None}, 'guidance "auto" is chosen by measurement: leave out --no-measure'),
        (
            of_classes,
            "auto",
            {},
            "nothing is known of .* that tells a better guidance scale, as the error .* tells none",
        ),
        (of_classes, "automatic", {}, "guidance is a number, \"auto\" or a ScaleSearch, got 'automatic'"),
        (unguided, "auto", {}, "takes no condition, so there is nothing to guide: leave out --guidance auto"),
        (of_words, "auto", {}, "draws from words: give --prompts FILE"),
        (of_words, "auto", {"prompts": "prompts.txt"}, "give --clip FOLDER with CLIP's weights, --data FOLDER"),
        (of_classes, ScaleSearch(negative=("a",)), {}, "--negative is for models that take prompts"),
        (of_classes, ScaleSearch(clip="x"), {}, "--clip scores pictures under prompts, and .* draws classes"),
        (of_classes, ScaleSearch(data="nowhere"), {}, "nowhere is not a folder of real pictures"),
        (of_classes, ScaleSearch(data=torch.zeros(3, 1, 2, 2)), {}, "3 real pictures say too little"),
        (of_classes, ScaleSearch(data=torch.zeros(3, 3, 2, 2)), {}, r"a tensor \(n, \*\(1, 2, 2\)\) in"),
        (of_classes, ScaleSearch(data=real(0.1)), {"images": 4}, "4 images are too few .* which takes 16"),
        (lambda: "digits", "auto", {"images": 100}, "100 images are too few .* by distance, which takes 320"),
    ],
)
def test_what_cannot_be_chosen_is_refused_and_leaves_nothing(
    place: Path, source: Any, guidance: Any, evidence: dict[str, Any], message: str
) -> None:
    with pytest.raises(fs.InvalidInput, match=message):
        choose(source(), BUDGET, guidance=guidance, evidence=Evidence(**evidence))
    assert not os.path.exists(place)


@pytest.mark.parametrize(
    "given",
    [{"scales": (float("nan"),)}, {"scales": (None,)}, {"negative": (" ",)}, {"negative": "blue"}, {"scales": 3.0}],
)
def test_a_search_holds_scales_and_words(given: dict[str, Any]) -> None:
    with pytest.raises(fs.InvalidInput, match=r"a guidance scale is a finite number|numbers|not empty|several to try"):
        ScaleSearch(**given)
