"""What distances are measured on: a map from images to vectors, with a name and a digest.

Anything with these four members serves, such as the digits classifier of `fewstep.zoo.classifier`, or a callable in
`FunctionFeatures`. Two figures may be compared only where name and digest are equal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput


@runtime_checkable
class Features(Protocol):
    """A map from images to feature vectors.

    Attributes:
        name: for people; `digest`: of all that decides the values, its weights above all.
        width: length of a vector.
    """

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def width(self) -> int: ...

    def __call__(self, images: Tensor) -> Tensor:
        """(B, width) from images (B, C, H, W) in [-1, 1]."""
        ...


class FeatureId(NamedTuple):
    """Which features: name, digest and width."""

    name: str
    digest: str
    width: int

    @staticmethod
    def of(features: Features) -> FeatureId:
        """The id of `features`. Raises `InvalidInput` where they lack one of its parts."""
        try:
            name, digest, width = features.name, features.digest, features.width
        except AttributeError as error:
            raise InvalidInput(
                f"features have a name, a digest and a width, and map images to (batch, width); a "
                f"{type(features).__name__} does not: wrap a callable in FunctionFeatures"
            ) from error
        if not isinstance(name, str) or not isinstance(digest, str) or not name or not digest:
            raise InvalidInput(f"name and digest of features are texts, not empty, got {name!r} and {digest!r}")
        return FeatureId(name, digest, width)


class FunctionFeatures:
    """Any callable as features.

    Args:
        function: `images (B, C, H, W) in [-1, 1] -> (B, width)`; more dimensions are flattened.
        name: what to call them.
        width: length of a vector.
        digest: names all that decides the values. For a torch module it is computed from its weights where not given.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], name: str, width: int, digest: str | None = None):
        if digest is None:
            if not isinstance(function, nn.Module):
                raise InvalidInput(
                    "features of a plain callable need digest=, a text that changes whenever the values would, such "
                    "as a version; only the digest of a torch module can be computed"
                )
            digest = module_digest(function)
        self.function, self.name, self.width, self.digest = function, name, width, digest

    def __call__(self, images: Tensor) -> Tensor:
        return self.function(images).flatten(1)


class PixelFeatures:
    """The pixels themselves: for small images, and where there is nothing better. `shape` is (C, H, W)."""

    def __init__(self, shape: Sequence[int]):
        self.shape = tuple(shape)
        self.name = "pixels " + "x".join(map(str, self.shape))
        self.digest = "pixels-1"
        self.width = int(torch.Size(self.shape).numel())

    def __call__(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != self.shape:
            raise InvalidInput(f"{self.name} were given images of shape {tuple(images.shape[1:])}")
        return images.flatten(1)


def module_digest(module: nn.Module) -> str:
    """16 hexadecimal digits of a SHA-256 over a module's class, and the names and values of its weights and buffers."""
    state = hashlib.sha256(type(module).__qualname__.encode())
    for name, tensor in sorted(module.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        state.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        state.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]
