"""What the pictures of a plan are judged by: their distance to the converged ones, and what they show themselves."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fewstep.benchmark.subject import FIRST, Subject
from fewstep.benchmark.yardstick import FRECHET_WIDTHS, Adherence, real_digits, signed, thumbnails
from fewstep.core.errors import InvalidInput
from fewstep.measure.adherence import ClipScore, mean_score
from fewstep.measure.converged import Converged
from fewstep.measure.distance import LEAST_ERROR
from fewstep.measure.features import Features
from fewstep.measure.figure import REPLICATES, Figure, figure_of, resampling
from fewstep.measure.frechet import frechet_distance
from fewstep.measure.saturation import saturation
from fewstep.measure.spread import diversity
from fewstep.measure.summary import Summary
from fewstep.zoo import classifier

FLOOR = 1e-20


class Judge:
    """What one model's pictures are judged by.

    Attributes:
        features: to measure distance and diversity on; `reference`: real images, None where there are none.
        no_distance: why there is no distance, or "".
    """

    def __init__(self, subject: Subject, clip: str | os.PathLike[str] | None = None):
        self.subject, self.no_distance, self.reference = subject, "", None
        self.features: Features = thumbnails(subject.pixel_shape)
        if subject.shows_digits:
            self._use_digits()
        else:
            self.no_distance = "no features and no real images of this model are known"
        if clip is not None and not subject.words:
            raise InvalidInput(f"--clip scores pictures under prompts, and {subject.model.name} draws classes")
        self.clip = None if clip is None else ClipScore(clip, device=subject.device)
        self.adherence = None if subject.known_prompts is None else Adherence(subject.known_prompts)

    def _use_digits(self) -> None:
        images = self.subject.count
        self.features = classifier.load_shipped()
        least = FRECHET_WIDTHS * self.features.width
        if images < least:
            self.no_distance = f"{images} images are too few for a distance, which needs {least}: use --images"
            return
        try:
            self.reference = real_digits()
        except InvalidInput as error:
            self.no_distance = str(error)

    @cached_property
    def facts(self) -> list[str]:
        """What decides the figures, for the key of a measurement."""
        clip = "" if self.clip is None else self.clip.digest
        return [self.features.digest, "" if self.reference is None else self.reference.digest, clip]

    def tally(self, converged: Converged | None) -> Tally:
        """An empty tally; without converged images for plans that draw noise."""
        return Tally(self, converged)


class Tally:
    """What is known of the pictures of one plan so far: some numbers an image, and their features."""

    def __init__(self, judge: Judge, converged: Converged | None):
        self.judge, self.converged = judge, converged
        self.images = self.lost = 0
        self.numbers: list[int] = []
        self.scores: dict[str, list[Tensor]] = {}
        self.summary = Summary(judge.features)

    def add(self, numbers: Sequence[int], states: Tensor, pictures: Tensor, wanted: Tensor | None) -> None:
        """Take in a batch: the states (B, ..) at the end, its pictures (B, C, H, W), and the pictures of the converged
        solution. Images that are not finite are counted as lost and left out.
        """
        subject = self.judge.subject
        good = states.isfinite().flatten(1).all(dim=1).cpu() & pictures.isfinite().flatten(1).all(dim=1)
        self.images += len(good)
        self.lost += int((~good).sum())
        if not bool(good.any()):
            return
        kept = [n for n, keep in zip(numbers, good.tolist(), strict=True) if keep]
        self.numbers += kept
        pictures, low, high = pictures[good], *subject.value_range
        if self.converged is not None and wanted is not None:
            solution = self.converged.solution[[n - FIRST for n in kept]]
            self._score("squares", (states.cpu()[good].double() - solution.double()).square().flatten(1).mean(dim=1))
            self._score("pictures", (pictures.double() - wanted[good].double()).square().flatten(1).mean(dim=1))
        self._score("saturation", saturation(pictures, low, high).share)
        shown = signed(pictures, subject.value_range)
        self.summary.update(shown)
        if self.judge.adherence is not None:
            self._score("adherence", self.judge.adherence.read(shown, [subject.condition(n) for n in kept])[:, 0])
        if self.judge.clip is not None:
            self._score("clip", self.judge.clip(shown, [subject.condition(n) for n in kept]))

    def _score(self, name: str, values: Tensor) -> None:
        self.scores.setdefault(name, []).append(values.double().cpu())

    def figures(self) -> dict[str, Figure]:
        """All that can be said with an interval; nothing of fewer than 2 images."""
        if len(self.numbers) < 2:
            return {}
        scores = {name: torch.cat(parts) for name, parts in self.scores.items()}
        found: dict[str, Figure] = {}
        if self.converged is not None:
            found |= self._errors(scores["squares"], scores["pictures"])
        found["diversity"] = diversity(self.summary)
        found["saturation"] = mean_score("saturation", scores["saturation"], better="less")
        if "adherence" in scores:
            assert self.judge.adherence is not None
            found["adherence"] = self.judge.adherence.figure(scores["adherence"][:, None], self._prompts())
        if self.judge.clip is not None:
            found["clip"] = self.judge.clip.figure(scores["clip"], self._prompts())
        if self.judge.reference is not None:
            found["distance"] = frechet_distance(self.summary, self.judge.reference)
        # Pictures that are huge without being infinite overflow some figures.
        return {name: figure for name, figure in found.items() if math.isfinite(figure.low + figure.high)}

    def _prompts(self) -> list[str]:
        return [self.judge.subject.condition(n) for n in self.numbers]

    def _errors(self, squares: Tensor, pictures: Tensor) -> dict[str, Figure]:
        """RMSE of the states and that of the typical image, the share of the variance that they reach, and PSNR of the
        pictures.
        """
        assert self.converged is not None
        weights = resampling(len(squares), REPLICATES, 0)
        moved = weights @ squares
        variance = max(self.converged.variance, FLOOR)
        low, high = self.judge.subject.value_range
        facts: dict[str, Any] = {"n": len(squares), "reference": self.converged.digest, "confidence": 0.95}
        mean, logs = float(squares.mean()), squares.clamp_min(LEAST_ERROR).log()

        def psnr(mse: Tensor) -> Tensor:
            return 20 * math.log10(high - low) - 10 * mse.clamp_min(FLOOR).log10()

        found = {
            "error": ("trajectory rmse", mean**0.5, moved.sqrt()),
            "typical": ("typical trajectory rmse", math.exp(float(logs.mean()) / 2), (weights @ logs / 2).exp()),
            "quality": ("explained variance", 1 - mean / variance, 1 - moved / variance),
            "psnr": ("trajectory psnr", float(psnr(pictures.mean())), psnr(weights @ pictures)),
        }
        better = {"error": "less", "typical": "less", "quality": "more", "psnr": "more"}
        settings = {"psnr": f"range={high - low:g}"}
        return {
            name: figure_of(*values, better=better[name], settings=settings.get(name, ""), **facts)
            for name, values in found.items()
        }
