"""The digits classifier: trained in seconds, on images that are each moved by up to one pixel, with a little noise.

The features are to read what a sampler draws, which is not on a raster of 16 levels.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fewstep.core.errors import InvalidInput
from fewstep.recipes.labelled import Labelled
from fewstep.recipes.module import OfModule, role_of
from fewstep.recipes.paths import check_file, folder_of
from fewstep.recipes.threads import limited
from fewstep.training import STATES, STUDENT, Batch, Draws, Loss, Phase, Progress, Roles, Run, Settings, train
from fewstep.training.denoising import column
from fewstep.training.draws import key_of
from fewstep.zoo import classifier, digits
from fewstep.zoo.classifier import ClassifierFeatures, DigitsClassifier
from fewstep.zoo.dataset import ImageSet

CLASSIFIER = Settings(steps=800, rate=3e-3, optimiser="adamw", weight_decay=0.05, clip=0.0, width=0.0)
"""Those of `fewstep train classifier`."""


@dataclass(frozen=True)
class Classifying(OfModule):
    """The class of an image, by cross-entropy.

    Attributes:
        noise: the largest standard deviation of the noise on an image; each draws its own below.
    """

    name: ClassVar[str] = "classifying"

    noise: float = 0.2

    def losses(self, roles: Roles, batch: Batch, phase: Phase, draws: Draws) -> Iterator[Loss]:
        scores = roles[STUDENT].module(self.varied(batch.data, draws))
        yield Loss(STUDENT, functional.cross_entropy(scores, batch.condition["label"]))

    def varied(self, images: Tensor, draws: Draws) -> Tensor:
        """Images (B, 1, H, W), each moved by -1, 0 or 1 pixel in either direction, with noise of its own strength."""
        batch, _, height, width = images.shape
        wide = functional.pad(images, (1, 1, 1, 1), value=-1.0)
        down, right = (
            torch.from_numpy(np.floor(3 * draws.uniform(way)).astype(np.int64))[:, None, None]
            for way in ("down", "right")
        )
        rows, columns = torch.arange(height)[None, :, None] + down, torch.arange(width)[None, None] + right
        moved = wide[torch.arange(batch)[:, None, None], 0, rows, columns][:, None]
        strength = self.noise * column(draws.uniform("strength"), images)
        return moved + strength * draws.normal("noise", images.shape[1:])


def train_classifier(
    settings: Settings,
    out: str | os.PathLike[str],
    *,
    data: ImageSet | None = None,
    watch: Callable[[Progress], None] = lambda now: None,
) -> ClassifierFeatures:
    """Train a classifier on one thread, write it to `out` and return it.

    Beside `out` there is a folder of its name without `.safetensors`, with the log, and with the states from which the
    same call goes on after an interruption; these are removed at the end.

    Args:
        settings: of the loop; `CLASSIFIER` are the usual ones.
        data: labelled images; the digits of scikit-learn when None.

    Raises:
        InvalidInput: the data are not digits of 8x8, or `out` cannot be a .safetensors file.
        Diverged: the loss is not finite.
    """
    out = Path(out)
    check_file(out)
    data = digits.load() if data is None else data
    if tuple(data.images.shape[1:]) != (1, 8, 8) or data.classes != 10:
        raise InvalidInput(
            f"the classifier reads images (1, 8, 8) of 10 classes, {data.name!r} are {tuple(data.images.shape[1:])} of "
            f"{data.classes}"
        )
    kept, held = data.split(classifier.HELD_OUT, classifier.SPLIT_SEED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key_of(settings.seed, "weights"))
        network = DigitsClassifier()
    run = Run(Classifying(), {STUDENT: role_of(network)}, Labelled(kept), settings, folder_of(out))
    with limited(1):
        train(run, watch)
        network.eval().requires_grad_(False)
        accuracy = float((network(held.images).argmax(1) == held.labels).double().mean())
    facts = {**run.known_as, "seed": settings.seed, "steps": settings.steps, "accuracy": accuracy}
    found = classifier.save(out, network, facts)
    shutil.rmtree(run.folder / STATES)
    return found
