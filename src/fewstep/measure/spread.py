"""Diversity: how far apart the images of one set are."""

from __future__ import annotations

import torch

from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Figure, figure_of
from fewstep.measure.pairs import mean_within
from fewstep.measure.summary import Summary, check_pair


def diversity(images: Summary, *, bootstrap: Bootstrap = BOOTSTRAP) -> Figure:
    """The mean distance of the features of two different images, over all pairs of those that were kept.

    It needs no reference; to judge it, measure the real images too. Give images of one class or prompt, where the
    variety within it is meant. A sample of the bootstrap with one image alone is drawn again.

    Raises:
        InvalidInput: for fewer than 2 images.
    """
    facts = check_pair(images, images, 2, "a distance between images")._replace(reference="")
    weights = bootstrap.weights(len(images.kept.rows), different=2)
    value, samples = mean_within(images.rows, torch.cdist, weights)
    return figure_of(
        "diversity",
        value,
        samples,
        n=len(images.kept.rows),
        better="more",
        **bootstrap.facts,
        **facts._asdict(),
    )
