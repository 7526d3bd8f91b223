"""The guidance scale of a model, chosen by measurement; and a negative prompt, where one helps at that scale."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.benchmark.commands import exact
from fewstep.benchmark.folder import opened
from fewstep.benchmark.negative import Negative, Negatives, bootstrap_of, usual_negatives
from fewstep.benchmark.planner import Budget
from fewstep.benchmark.rounds import Case, Rounds
from fewstep.benchmark.scale import Verdict
from fewstep.benchmark.settings import Forecast, Reporter
from fewstep.benchmark.subject import Subject
from fewstep.benchmark.yardstick import Adherence, Yardstick, yardstick_of
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.measure.standing import advantage
from fewstep.solvers.registry import SAMPLERS
from fewstep.tuning.rivals import fitting
from fewstep.tuning.subject import check_scale, scale_of

LADDER = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.5, 10.0)
"""The scales that are tried, beside the model's own; 1 is no guidance."""
IMAGES, LEAST = 64, 16
"""Images at each scale where nobody says how many, and fewest that decide anything."""
SHARE = 0.5
"""Of the time of a choice for the scale, and then the negative prompts."""


@dataclass(frozen=True, eq=False)
class ScaleSearch:
    """How to look for a guidance scale.

    Attributes:
        scales: to try; without any, `LADDER`. The model's own is tried too.
        negative: prompts to try as negative ones, for a model of words; without any, a short list.
        clip: a folder with the weights of CLIP: its score decides, or with `data` its features.
        data: a folder of real pictures, or a tensor (n, C, H, W) in [-1, 1]: the distance to them decides.
    """

    scales: Sequence[float] = ()
    negative: Sequence[str] = ()
    clip: str | os.PathLike[str] | None = None
    data: str | os.PathLike[str] | Tensor | None = None

    def __post_init__(self) -> None:
        for name, several in (("scales", self.scales), ("negative", self.negative)):
            if isinstance(several, str) or not isinstance(several, Sequence):
                raise InvalidInput(f"{name} of a search are several to try, such as a list, got {several!r:.60}")
        for scale in self.scales:
            check_scale(scale)
            if scale is None:
                raise InvalidInput("scales to try are numbers; the model's own is tried anyway: leave None out")
        for text in self.negative:
            if not isinstance(text, str) or not text.strip():
                raise InvalidInput(f"a negative prompt to try is a text that is not empty, got {text!r:.60}")


@dataclass(frozen=True)
class ScaleChoice:
    """What was found of the guidance scale.

    Attributes:
        scale: to draw with.
        sampler: that drew, in words.
        verdict: None where too little was measured to say anything, `why`; the scale is the model's own then.
        negatives: those that were tried at this scale; None for a model of classes.
        notes: what to know of it.
    """

    scale: float
    sampler: str
    verdict: Verdict | None
    negatives: Negatives | None = None
    why: str = ""
    notes: Sequence[str] = field(default=())

    @property
    def negative(self) -> str | None:
        """The negative prompt to draw with; None where none helps."""
        return None if self.negatives is None else self.negatives.text

    @property
    def words(self) -> list[str]:
        """What to tell people, a sentence each."""
        said = [self.why] if self.verdict is None else self.verdict.words
        return [*said, *(self.negatives.words if self.negatives is not None else []), *self.notes]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "scale": self.scale,
            "sampler": self.sampler,
            "negative": self.negative,
            "verdict": None if self.verdict is None else self.verdict.to_json(),
            "negatives": None if self.negatives is None else self.negatives.to_json(),
            "words": self.words,
        }


def search_of(guidance: float | str | ScaleSearch | None) -> ScaleSearch | None:
    """How to look for the scale; None where it is given. Raises `InvalidInput` for other words than "auto"."""
    if isinstance(guidance, ScaleSearch):
        return guidance
    if isinstance(guidance, str):
        if guidance != "auto":
            raise InvalidInput(f'guidance is a number, "auto" or a ScaleSearch, got {guidance!r:.60}')
        return ScaleSearch()
    return None


def find_scale(
    subject: Subject, budget: Budget, search: ScaleSearch, place: Path, seconds: float, reporter: Reporter
) -> ScaleChoice:
    """The guidance scale for a budget, by pictures of the same noise at each scale.

    They are drawn by the model's own sampler, with as many rows as the budget allows at that scale, and at most as many
    as it usually takes. What is in the folder is not drawn again.

    Args:
        place: the folder.
        seconds: about how long it may take.

    Raises:
        InvalidInput: there is nothing to guide, nothing tells a better scale, no scale fits the budget, and what
            `yardstick_of` refuses.
    """
    own = _checked(subject, search)
    yardstick = yardstick_of(subject.pipe, subject.known_prompts, search.clip, search.data)
    subject = subject.drawing(replace(subject.pictures, count=_count(subject, yardstick)))
    scales = sorted({own, *map(float, search.scales or LADDER)})
    affordable = [scale for scale in scales if _fits(subject, budget, scale)]
    if not affordable:
        raise InvalidInput(f"no guidance scale of {', '.join(map(exact, scales))} fits {budget}: allow more")
    end = time.monotonic() + seconds
    with opened(place, subject.model, subject.hint) as folder:
        rounds = Rounds(subject, folder, yardstick, reporter)
        ladder = [rounds.case(scale, _plan(subject, budget, scale)) for scale in affordable]
        texts = _negatives(subject, search, yardstick)
        if lacking := rounds.lacking(ladder):
            _announce(rounds, ladder, lacking, texts, place)
        folder.describe()
        images = rounds.run(ladder, end)
        found = _decided(rounds, ladder, images, own)
        if len(affordable) < len(scales):
            out = ", ".join(exact(scale) for scale in scales if scale not in affordable)
            found = replace(found, notes=[f"Guidance {out} does not fit {budget}, as a guided row takes 2 evaluations"])
        if subject.words:
            found = replace(found, negatives=_tried(rounds, found, texts, (ladder, images), end))
    return found


def _checked(subject: Subject, search: ScaleSearch) -> float:
    """The model's own scale. Raises `InvalidInput` for what cannot be looked for."""
    if not subject.guided:
        raise InvalidInput(
            f"{subject.model.name} takes no condition, so there is nothing to guide: leave out --guidance auto"
        )
    if search.negative and not subject.words:
        raise InvalidInput(f"--negative is for models that take prompts, and {subject.model.name} draws classes")
    if search.negative and subject.pipe.model.conditioner.distilled:
        raise InvalidInput(
            f"--negative cannot act on {subject.model.name}, which is told its guidance scale and guides away from "
            "nothing: leave it out"
        )
    subject.conditions  # noqa: B018  refuses a model of words without prompts
    return scale_of(subject.pipe, None)


def _count(subject: Subject, yardstick: Yardstick) -> int:
    """Images at each scale."""
    count = subject.pictures.count
    if count is None:
        return max(IMAGES, yardstick.least)
    if count < max(LEAST, yardstick.least):
        raise InvalidInput(
            f"{count} images are too few to choose a guidance scale by {yardstick.name}, which takes "
            f"{max(LEAST, yardstick.least)}: give --images {max(LEAST, yardstick.least)}, or a scale"
        )
    return count


def _fits(subject: Subject, budget: Budget, scale: float) -> bool:
    return budget.nfe is None or subject.target(scale).cost <= budget.nfe


def _plan(subject: Subject, budget: Budget, scale: float) -> Plan:
    """The model's own sampler, in as many rows as the budget allows at a scale, at most its usual ones."""
    target, usual = subject.target(scale), subject.pipe.plan()
    rows = budget.most_rows(target.cost)
    if rows is None or rows >= len(usual.rows):
        return usual
    recipe = usual.recipe
    known = fitting(recipe.sampler, target.schedule, rows, grid=recipe.grid) if recipe.sampler in SAMPLERS else iter(())
    return next(known, None) or next(fitting("ddim", target.schedule, rows))


def _negatives(subject: Subject, search: ScaleSearch, yardstick: Yardstick) -> tuple[str, ...]:
    """The negative prompts to try."""
    if not subject.words or subject.pipe.model.conditioner.distilled:
        return ()
    usual = usual_negatives("scenes" if isinstance(yardstick, Adherence) else "words")
    return tuple(dict.fromkeys(search.negative)) or usual


def _announce(
    rounds: Rounds, cases: Sequence[Case], lacking: Sequence[Case], texts: Sequence[str], place: Path
) -> None:
    """Say why, and what it will cost: of the scales, and of the negative prompts that come after them."""
    seconds, subject = rounds.pilot(lacking), rounds.subject
    case = max(lacking, key=rounds.evaluations)
    seconds += rounds.seconds * rounds.evaluations(case) * subject.count * len(texts)
    kind = "guidance scales" if case.negative is None else "negative prompts"
    what = kind + (f" and {len(texts)} negative prompts" if texts else "")
    rounds.reporter.begin(
        f"not all {kind} are measured by {rounds.yardstick.name}, which takes half of the time at most", place
    )
    row: dict[tuple[float | None, str], float] = {}
    row[case.scale, "float32"] = rounds.seconds * subject.target(case.scale).cost
    kept = sum(case not in lacking for case in cases)
    rounds.reporter.announce(Forecast(len(lacking), kept, subject.count, seconds, row, what))


def _decided(rounds: Rounds, ladder: Sequence[Case], images: int, own: float) -> ScaleChoice:
    """The verdict, as far as the images decide one."""
    count, recipe = rounds.subject.count, ladder[-1].plan.recipe
    sampler = f"{recipe.sampler} on {recipe.grid}"
    cut = "" if images >= count else f"{images} of {count} images were drawn at each scale in the time that there was"
    if images < max(LEAST, rounds.yardstick.least):
        few = [exact(case.scale) for case in ladder if len(case.kept) < max(LEAST, rounds.yardstick.least)]
        why = (
            f"No guidance scale is chosen: {cut}, too few to decide by {rounds.yardstick.name} (missing at "
            f"{', '.join(few)}). The model's own scale {exact(own)} stays; allow more seconds, and it goes on"
        )
        return ScaleChoice(own, sampler, None, why=why)
    rungs = [rounds.rung(case, images) for case in ladder]
    verdict = Verdict.of(rounds.yardstick.name, rungs, own, cut)
    return ScaleChoice(verdict.scale, sampler, verdict)


def _tried(
    rounds: Rounds, found: ScaleChoice, texts: Sequence[str], drawn: tuple[Sequence[Case], int], end: float
) -> Negatives:
    """Negative prompts at the scale that was found, against none."""
    name, ladder, images = rounds.yardstick.name, *drawn
    if not texts:
        return Negatives(name, why="Nothing is guided away from: the network is told its guidance scale")
    if found.verdict is None or found.verdict.cut:
        return Negatives(name, why="No negative prompt was measured, as the scales took all of the time")
    if rounds.subject.target(found.scale).cost == 1:
        return Negatives(name, why=f"Guidance {exact(found.scale)} guides away from nothing: no negative prompt acts")
    base = next(case for case in ladder if case.scale == found.scale)
    cases = [rounds.case(found.scale, base.plan, text) for text in texts]
    own = Rounds(
        rounds.subject.drawing(replace(rounds.subject.pictures, count=images, batch=rounds.subject.batch)),
        rounds.folder,
        rounds.yardstick,
        rounds.reporter,
    )
    own.seconds, own.drew = rounds.seconds, rounds.drew
    if (lacking := own.lacking([base, *cases], base)) and not rounds.drew:
        _announce(own, cases, lacking, (), rounds.folder.path)
    reached = own.run([base, *cases], end, base)
    cut = "" if reached >= images else f"{reached} of {images} images were drawn with each in the time that there was"
    if reached < max(LEAST, rounds.yardstick.least):
        return Negatives(name, why=f"No negative prompt is offered: {cut}, too few to decide; allow more seconds")
    bootstrap = bootstrap_of(len(cases))
    tried = []
    for case in cases:
        count = case.dropped or reached
        lost = bool(case.kept.first(count).lost.any())
        figure = None if lost else rounds.figure(case, count, bootstrap)
        gain = None if figure is None else advantage(figure, rounds.figure(base, count, bootstrap))
        tried.append(Negative(str(case.negative), count, figure, gain))
    return Negatives(name, tried, bootstrap.confidence, cut=cut)
