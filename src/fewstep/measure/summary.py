"""What is remembered of a set of images: exact moments of their features, and a bounded sample of the feature rows.

    real = Summary(features)
    for images in batches:
        real.update(images)

Memory is constant: width^2 numbers for the moments, `keep` rows for the measures that look at neighbours or pairs.
Summaries that workers made of different images merge into the one that a single worker would have made.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.measure import stored
from fewstep.measure.features import FeatureId, Features
from fewstep.measure.kept import Kept
from fewstep.measure.moments import Moments, checked

KEEP = 10_000
"""Rows of features that are kept unless the caller says otherwise."""

KIND = "feature summary"
_MASK = 2**128 - 1


class Facts(NamedTuple):
    """How a figure of a summary names what it was measured on; see `Figure`."""

    features: str
    feature_digest: str
    reference: str


class Summary:
    """Features of a set of images.

    Attributes:
        id: name, digest and width of the features.
        moments: count, mean and scatter of all images.
        kept: a uniform sample of at most `keep` rows of features.
    """

    def __init__(self, features: Features | FeatureId, *, keep: int = KEEP, seed: int = 0):
        """
        Args:
            features: what images are mapped by; a `FeatureId` where only `update_features` is used.
            keep: most rows to remember.
            seed: decides which ones; give each worker its own.
        """
        self.features = None if isinstance(features, FeatureId) else features
        self.id = features if isinstance(features, FeatureId) else FeatureId.of(features)
        self.moments = Moments(self.id.width)
        self.kept = Kept(self.id.width, keep, seed)
        self._content = 0

    @property
    def n(self) -> int:
        """Images taken in."""
        return self.moments.n

    @property
    def rows(self) -> Tensor:
        """(kept, width), float64: all rows where n is at most `keep`, else a uniform sample of them."""
        return self.kept.rows.double()

    @property
    def digest(self) -> str:
        """16 hexadecimal digits over the features and the set of images, whatever their order or batches."""
        text = f"{self.id} {self.n} {self._content:032x}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def update(self, images: Tensor) -> None:
        """Take in images (B, C, H, W) of values in [-1, 1]; values beyond are cut off, as in a picture file.

        Raises:
            InvalidInput: for other shapes, NaN, or features of another width than they said.
        """
        if self.features is None:
            raise InvalidInput("this summary knows only the id of its features: use update_features, or give Features")
        if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point():
            got = f"{images.dtype} of {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
            raise InvalidInput(f"images are floating point tensors (batch, channels, height, width), got {got}")
        if not bool(torch.isfinite(images).all()):
            raise InvalidInput("images that hold NaN or infinity have no features: leave them out")
        with torch.no_grad():
            images = images.clamp(-1, 1)
            self._take(self.features(images), images)

    def update_features(self, values: Tensor) -> None:
        """Take in features (B, width) that were computed elsewhere."""
        self._take(values, values)

    def _take(self, values: Tensor, content: Tensor) -> None:
        checked_values = checked(values, self.id.width)
        if len(values) != len(content):
            raise InvalidInput(f"{self.id.name} made {len(values)} rows of {len(content)} images")
        self.kept.update(values)
        self.moments.update(checked_values)
        for row in content.detach().to("cpu", torch.float32).contiguous().numpy():
            self._content += int.from_bytes(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), "little")
        self._content &= _MASK

    def merge(self, other: Summary) -> None:
        """Take in what another worker summed up of other images. Raises `InvalidInput` for other features."""
        check_alike(self, other)
        self.kept.merge(other.kept)
        self.moments.merge(other.moments)
        self._content = (self._content + other._content) & _MASK

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the summary as a safetensors file, to measure against later."""
        tensors = {
            "mean": self.moments.mean,
            "scatter": self.moments.scatter,
            "rows": self.kept.rows,
            "keys": self.kept.keys,
        }
        facts = {"keep": self.kept.limit, "seeds": sorted(self.kept.seeds), "content": f"{self._content:032x}"}
        stored.write(path, KIND, tensors, {**self.id._asdict(), "n": self.n, **facts})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Summary:
        """Read a file of `save`, to measure against or to merge. Raises `InvalidInput` where it is none."""
        names = ("mean", "scatter", "rows", "keys")
        keys = ("name", "digest", "width", "n", "keep", "seeds", "content")
        tensors, facts = stored.read(path, KIND, names, keys)
        try:
            summary = cls(FeatureId(str(facts["name"]), str(facts["digest"]), facts["width"]), keep=facts["keep"])
            summary.moments.n = int(facts["n"])
            summary._content = int(facts["content"], 16)
            seeds = [int(seed) for seed in facts["seeds"]]
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"{path}: its description is damaged ({error}): make it again") from error
        width, kept = summary.id.width, len(tensors["keys"])
        shapes = {"mean": (width,), "scatter": (width, width), "rows": (kept, width), "keys": (kept,)}
        for name, shape in shapes.items():
            if tuple(tensors[name].shape) != shape:
                raise InvalidInput(f"{path}: {name} has shape {tuple(tensors[name].shape)}, expected {shape}")
        summary.moments.mean, summary.moments.scatter = tensors["mean"], tensors["scatter"]
        summary.kept.restore(tensors["rows"], tensors["keys"], seeds)
        return summary


def check_alike(first: Summary, second: Summary) -> None:
    """Raise `InvalidInput` where two summaries are of different features."""
    if first.id != second.id:
        raise InvalidInput(
            f"the summaries are of different features, {first.id.name!r} ({first.id.digest}, width {first.id.width}) "
            f"and {second.id.name!r} ({second.id.digest}, width {second.id.width}): use the same for both"
        )


def check_pair(generated: Summary, reference: Summary, least: int, why: str) -> Facts:
    """The names of what is measured. Raises `InvalidInput` for different features or fewer than `least` images."""
    check_alike(generated, reference)
    for what, summary in (("generated", generated), ("reference", reference)):
        if summary.n < least:
            raise InvalidInput(f"{summary.n} {what} images are too few: {why} needs at least {least}. Give more images")
    return Facts(generated.id.name, generated.id.digest, reference.digest)
