"""A small classifier of the digits, whose last layer but one is the project's own feature space.

    features = classifier.load_shipped()
    summary = fewstep.measure.Summary(features)

Two convolutions and two layers (LeCun et al. 1998, Proc. IEEE 86, in outline), on images of 8x8. The features of an
image are what the last layer reads. Distances on them see what tells digits apart, which distances on pixels hardly do.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewstep.core.errors import InvalidInput
from fewstep.zoo import container

WIDTH, CLASSES, SIZE = 32, 10, 8
KEY = "fewstep-classifier"
MAX_BYTES = 1 << 20
HELD_OUT, SPLIT_SEED = 0.1, 0
"""The share of the digits, and the seed of the split, that no classifier of them is trained on."""


class DigitsClassifier(nn.Module):
    """Images (B, 1, 8, 8) in [-1, 1] to the scores of ten digits; `embed` gives the features (B, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Conv2d(1, 32, 3, padding=1)
        self.far = nn.Conv2d(32, 48, 3, stride=2, padding=1)
        self.feature = nn.Linear(48 * 16, WIDTH)
        self.score = nn.Linear(WIDTH, CLASSES)

    def embed(self, images: Tensor) -> Tensor:
        """The features, (B, 32)."""
        x = functional.gelu(self.far(functional.gelu(self.near(images))))
        return functional.gelu(self.feature(x.flatten(1)))

    def forward(self, images: Tensor) -> Tensor:
        return self.score(self.embed(images))


class ClassifierFeatures:
    """A trained classifier as features; a `fewstep.measure.Features`.

    Attributes:
        network: float32, in eval mode, without gradients.
        name, width: of the features; `digest` is over the weights and how they were made.
        training: facts about the training, such as `accuracy` on images that it never saw.
    """

    name = "digits classifier"
    width = WIDTH

    def __init__(self, network: DigitsClassifier, training: Mapping[str, Any]):
        self.network = network.eval().requires_grad_(False)
        self.training = dict(training)
        self.digest = _digest(network, self.training)

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 32) from images (B, 1, 8, 8) in [-1, 1]."""
        return self.network.embed(_checked(images))

    def classify(self, images: Tensor) -> Tensor:
        """The digit that each image is read as, (B,)."""
        return self.network(_checked(images)).argmax(dim=1)


def shipped_path() -> Path:
    """Where the classifier that comes with the package lies."""
    return Path(__file__).parent / "weights" / "digits-classifier.safetensors"


def load_shipped() -> ClassifierFeatures:
    """The classifier that comes with the package."""
    return load(shipped_path())


def save(path: str | os.PathLike[str], network: DigitsClassifier, training: Mapping[str, Any]) -> ClassifierFeatures:
    """Write a trained classifier as safetensors, whole or not at all."""
    document = {"width": WIDTH, "classes": CLASSES, "training": dict(training)}
    container.write(path, dict(network.state_dict()), {KEY: document})
    return ClassifierFeatures(network, training)


def load(path: str | os.PathLike[str]) -> ClassifierFeatures:
    """Read a file of `save`.

    Raises:
        FileNotFoundError: nothing is at `path`.
        InvalidInput: it is damaged, or no such classifier.
    """
    file = container.read(path, MAX_BYTES)
    document = file.document(KEY, "a classifier of digits")
    with torch.device("meta"):
        network = DigitsClassifier()
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    training = document.get("training")
    if file.shapes != wanted or not isinstance(training, dict):
        raise InvalidInput(f"{path}: its tensors or facts are not those of a classifier of digits; train it again")
    weights = {name: tensor.float() for name, tensor in file.tensors().items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise InvalidInput(f"{path}: a weight is NaN or infinite; train it again")
    network.load_state_dict(weights, assign=True)
    return ClassifierFeatures(network, training)


def _digest(network: DigitsClassifier, training: Mapping[str, Any]) -> str:
    state = hashlib.sha256(json.dumps(training, sort_keys=True, allow_nan=False).encode())
    for name, tensor in sorted(network.state_dict().items()):
        state.update(f"\0{name}\0".encode() + tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return state.hexdigest()[:16]


def _checked(images: Tensor) -> Tensor:
    if images.ndim != 4 or tuple(images.shape[1:]) != (1, SIZE, SIZE):
        raise InvalidInput(
            f"the classifier reads digits, images (batch, 1, {SIZE}, {SIZE}), got {tuple(images.shape)}: use features "
            "made for these images"
        )
    return images.float()
