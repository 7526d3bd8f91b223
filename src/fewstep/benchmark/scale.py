"""The guidance scale that measurements tell to take: the lowest of those that are as good as the best within noise.

All scales draw the same noise for the same prompts or labels, so each is compared with the best by a paired difference.
A low scale keeps more of the variety of the data, saturates less and, at 1, costs half; so a higher one has to be
better to be worth it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fewstep.benchmark.commands import exact
from fewstep.core.errors import InvalidInput
from fewstep.measure.figure import Difference, Figure
from fewstep.measure.standing import standing


@dataclass(frozen=True)
class Rung:
    """What was measured at one guidance scale.

    Attributes:
        rows: of the plan that drew; nfe: network evaluations of an image, guidance counted.
        images: that were drawn; lost: those of them that were not finite.
        figure: None where images were lost, or too few were drawn.
        saturated: share of pixels at the ends of the range, mean over images; None where images were lost.
        behind: by how much it is worse than the best, as far as it is known.
        dropped: whether it was so far behind that no more images were drawn.
    """

    scale: float
    rows: int
    nfe: float
    images: int
    lost: int = 0
    figure: Figure | None = None
    saturated: float | None = None
    behind: Difference | None = None
    dropped: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "scale": self.scale,
            "rows": self.rows,
            "nfe": self.nfe,
            "images": self.images,
            "lost": self.lost,
            "figure": figure_json(self.figure),
            "saturated": self.saturated,
            "behind": None if self.behind is None else self.behind._asdict(),
            "dropped": self.dropped,
        }


@dataclass(frozen=True)
class Verdict:
    """Which scale to take.

    Attributes:
        name: of the figure that decides.
        rungs: all scales, from low to high.
        best: the scale with the best figure; as_good: those that are as good within noise, it among them.
        scale: the one to take.
        own: the model's own scale. It stays where nothing speaks against it: where no scale is told from another, and
            where it is as good as the best of a measurement that was cut short.
        cut: what was not measured for want of time, or "".
    """

    name: str
    rungs: Sequence[Rung]
    best: float
    as_good: tuple[float, ...]
    scale: float
    own: float | None = None
    cut: str = ""

    @staticmethod
    def of(name: str, rungs: Sequence[Rung], own: float | None = None, cut: str = "") -> Verdict:
        """The verdict on figures of the same images; scales that were dropped or lost images have lost.

        Raises:
            InvalidInput: no scale has a figure, or two figures are not of the same images.
        """
        rungs = sorted(rungs, key=lambda rung: rung.scale)
        known = [i for i, rung in enumerate(rungs) if rung.figure is not None and not rung.dropped]
        if not known:
            raise InvalidInput(
                f"no guidance scale has the figure {name!r}, as images that were drawn were not finite: look at the "
                "model with `fewstep doctor`, or give a scale"
            )
        found = standing([rungs[i].figure for i in known])  # type: ignore[misc]
        for i, behind in zip(known, found.behind, strict=True):
            rungs[i] = replace(rungs[i], behind=behind)
        as_good = tuple(rungs[known[i]].scale for i in found.as_good)
        blind = len(as_good) == len(rungs) > 1
        scale = own if own is not None and own in as_good and (cut or blind) else as_good[0]
        return Verdict(name, tuple(rungs), rungs[known[found.best]].scale, as_good, scale, own, cut)

    @property
    def rung(self) -> Rung:
        """Of the scale to take."""
        return next(rung for rung in self.rungs if rung.scale == self.scale)

    @property
    def blind(self) -> bool:
        """Whether no scale is told from another."""
        return len(self.as_good) == len(self.rungs) > 1

    @property
    def words(self) -> list[str]:
        """What to tell people, a sentence each."""
        rung = next(rung for rung in self.rungs if rung.scale == self.best)
        others = [exact(scale) for scale in self.as_good if scale != self.best]
        images, paired = f"{rung.images} images", f"by paired differences of the same {rung.images} images, at 95%"
        said = [f"Guidance {exact(self.best)} has the best {self.name}, {told(self.name, rung.figure)}"]
        if others:
            said.append(f"As good within noise, {paired}: {', '.join(others)}")
        elif len(self.rungs) > 1:
            said.append(f"No other scale is as good, {paired}")
        if self.cut:
            stays = "stays, as none is surely better" if self.scale == self.own else "is the lowest of them"
            said.append(f"This is not the best for sure: {self.cut}. Guidance {exact(self.scale)} {stays}")
        elif self.blind:
            stays = f"{exact(self.scale)} {'stays' if self.scale == self.own else 'is taken, the lowest'}"
            said.append(f"{images} cannot tell any of these scales apart: guidance {stays}; draw more")
        elif others:
            said.append(f"Guidance {exact(self.scale)} is taken, the lowest of them")
        if far := [exact(rung.scale) for rung in self.rungs if rung.dropped and not rung.lost]:
            said.append(f"Far behind after fewer images, and not drawn further: {', '.join(far)}")
        if not self.blind and not self.cut and len(self.rungs) > 1 and self.rungs[-1].scale in self.as_good:
            said.append("The highest scale is among them: what is beyond it was not tried")
        return said

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "measure": self.name,
            "scale": self.scale,
            "best": self.best,
            "as_good": list(self.as_good),
            "own": self.own,
            "not_measured": self.cut,
            "scales": [rung.to_json() for rung in self.rungs],
            "words": self.words,
        }


def told(name: str, figure: Figure | Difference | None) -> str:
    """A figure or a difference with its interval, for people; "" for none."""
    if figure is None:
        return ""
    return f"{shown(name, figure.value)} ({shown(name, figure.low)} to {shown(name, figure.high)})"


def shown(name: str, value: float) -> str:
    """A value of a figure, or of a difference of two; shares in percent."""
    return f"{value:.1%}" if name == "adherence" else f"{value:.4g}"


def figure_json(figure: Figure | None) -> dict[str, Any] | None:
    """A figure as JSON values, without its replicates."""
    if figure is None:
        return None
    return {name: value for name, value in figure.to_json().items() if name != "replicates"}
