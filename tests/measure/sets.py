"""Sets of features to measure."""

import torch

from fewstep.measure.features import FeatureId
from fewstep.measure.summary import Summary


def gaussian(n, width, seed, scale=1.0, shift=0.0):
    """(n, width) rows of a Gaussian with an uneven spectrum."""
    z = torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return z * scale * torch.linspace(0.5, 1.5, width, dtype=torch.float64) + shift


def summed(values, name="test", digest="1", **options):
    """The summary of rows of features."""
    summary = Summary(FeatureId(name, digest, values.shape[1]), **options)
    summary.update_features(values)
    return summary
