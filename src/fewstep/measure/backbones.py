"""Features of the networks that the field measures with, from weights that are on disk. Nothing is ever downloaded.

CLIP (Radford et al. 2021, arXiv 2103.00020) and DINOv2 (Oquab et al. 2023, arXiv 2304.07193; Stein et al. 2023, arXiv
2306.04675 find distances on it nearest to what people judge) load through transformers, from a folder in its format.
Inception-v3 (Szegedy et al. 2016, arXiv 1512.00567; the network of "FID", in the conversion of torch-fidelity) loads
through torchmetrics.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.measure.features import module_digest

CLIP_SCALE = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
IMAGENET_SCALE = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of each channel in [0, 1], where the folder does not say."""


class Preparation(NamedTuple):
    """How images become what a network reads: resized to `size` (bicubic, antialiased), less `mean`, over `std`, which
    are (1, 3, 1, 1) for values in [0, 1].
    """

    size: int
    mean: Tensor
    std: Tensor

    @staticmethod
    def of(folder: Path, size: int, usual: tuple[Sequence[float], Sequence[float]]) -> Preparation:
        """As the folder's preprocessor_config.json says, or with the `usual` mean and std."""
        said = prepared(folder)
        scale = said.get("image_mean", usual[0]), said.get("image_std", usual[1])
        mean, std = (torch.tensor(values, dtype=torch.float32).reshape(1, 3, 1, 1) for values in scale)
        return Preparation(size, mean, std)

    def __call__(self, images: Tensor, like: Tensor) -> Tensor:
        """(B, 3, size, size), of the dtype and on the device of `like`, from images (B, 3 or 1, H, W) in [-1, 1]; grey
        ones become three equal channels.
        """
        check_images(images)
        x = images.to(like.device, torch.float32).expand(-1, 3, -1, -1)
        if x.shape[2:] != (self.size, self.size):
            x = functional.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True).clamp(-1, 1)
        return (((x + 1) / 2 - self.mean.to(x.device)) / self.std.to(x.device)).to(like.dtype)


class BackboneFeatures:
    """A loaded network as `Features`.

    Attributes:
        name, digest, width: of the features; the digest is over weights and preparation.
    """

    def __init__(self, name: str, network: nn.Module, read: Callable[[Any], Tensor], width: int, prepare: Preparation):
        self.network = network.eval().requires_grad_(False)
        self.name, self.width, self.read, self.prepare = name, width, read, prepare
        scale = [round(float(v), 6) for v in torch.cat([prepare.mean, prepare.std]).flatten()]
        self.digest = hashlib.sha256(f"{module_digest(network)} {prepare.size} {scale}".encode()).hexdigest()[:16]

    def __call__(self, images: Tensor) -> Tensor:
        """(B, width) from images (B, 3 or 1, H, W) in [-1, 1]."""
        like = next(self.network.parameters())
        return self.read(self.network(self.prepare(images, like))).flatten(1)


def backbone(kind: str, path: str | os.PathLike[str], *, device: torch.device | str | None = None) -> Any:
    """`Features` of a network of `kind`: "clip", "dinov2" or "inception".

    Args:
        path: a folder in the format of transformers, with config.json and model.safetensors, for CLIP (whole, or its
            image half) and DINOv2; the file of weights of torch-fidelity for Inception-v3.
        device: where to run it.

    Raises:
        InvalidInput: for another kind, a folder or file that is not there or is of another kind, and where the library
            that reads it is not installed.
    """
    loaders = {"clip": _clip, "dinov2": _dinov2, "inception": _inception}
    if kind not in loaders:
        raise unknown_name("backbone", str(kind), loaders)
    features = loaders[kind](Path(path))
    if device is not None:
        features.network.to(device)
    return features


def _clip(folder: Path) -> BackboneFeatures:
    check_folder(folder, "clip", ("clip", "clip_vision_model"))
    network = from_folder("CLIPVisionModelWithProjection", folder)
    size, width = network.config.image_size, network.config.projection_dim
    return BackboneFeatures(
        "clip", network, lambda out: out.image_embeds, width, Preparation.of(folder, size, CLIP_SCALE)
    )


def _dinov2(folder: Path) -> BackboneFeatures:
    check_folder(folder, "dinov2", ("dinov2",))
    network = from_folder("Dinov2Model", folder)
    width = network.config.hidden_size
    crop = prepared(folder).get("crop_size")
    # 224 is the size that images are shown at, whatever the size of its table of places.
    size = crop["height"] if isinstance(crop, dict) else crop or min(224, network.config.image_size)
    return BackboneFeatures(
        "dinov2", network, lambda out: out.pooler_output, width, Preparation.of(folder, size, IMAGENET_SCALE)
    )


class _Inception:
    """Inception-v3 reads bytes of images of any size, and resizes them itself."""

    name, width = "inception-v3", 2048

    def __init__(self, network: nn.Module):
        self.network = network.eval().requires_grad_(False)
        self.digest = module_digest(network)

    def __call__(self, images: Tensor) -> Tensor:
        check_images(images)
        device = next(self.network.parameters()).device
        pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(device, torch.uint8).expand(-1, 3, -1, -1)
        return self.network(pixels).flatten(1)


def _inception(file: Path) -> _Inception:
    if not file.is_file():
        raise InvalidInput(f"there is no file {file} with the weights of Inception-v3: fewstep never downloads weights")
    try:
        from torchmetrics.image.fid import NoTrainInceptionV3  # pyright: ignore[reportMissingImports]

        network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(file))
    except (ImportError, ModuleNotFoundError) as error:
        raise InvalidInput(
            "Inception-v3 needs torchmetrics and torch-fidelity: pip install torchmetrics torch-fidelity"
        ) from error
    return _Inception(network)


def check_folder(folder: Path, kind: str, types: tuple[str, ...]) -> None:
    """Raise `InvalidInput` unless `folder` is one of transformers that holds a model of one of `types`."""
    config = _json(folder / "config.json")
    if not (folder / "model.safetensors").is_file() or config is None:
        raise InvalidInput(
            f"{folder} is not a folder of {kind}: it needs config.json and model.safetensors. fewstep never downloads "
            "weights, and does not open pickles"
        )
    if config.get("model_type") not in types:
        raise InvalidInput(
            f"{folder} holds a model of type {config.get('model_type')!r}, for {kind} it is {types[0]!r}"
        )


def from_folder(name: str, folder: Path) -> Any:
    """The class `name` of transformers from the safetensors of `folder`.

    Raises `InvalidInput` where a weight is missing, the file is damaged, or transformers is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise InvalidInput("this backbone needs transformers: pip install 'fewstep[diffusers]'") from error
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # CLIP's text half is left out on purpose
    logging.disable_progress_bar()
    try:
        options = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
        network, report = getattr(transformers, name).from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InvalidInput(f"{folder} cannot be read as {name}: {error}") from error
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
    if report["missing_keys"]:
        raise InvalidInput(
            f"{folder} lacks {len(report['missing_keys'])} weights, {sorted(report['missing_keys'])[:3]}"
        )
    return network


def prepared(folder: Path) -> dict[str, Any]:
    """What preprocessor_config.json says; nothing where it is not there."""
    return _json(folder / "preprocessor_config.json") or {}


def check_images(images: Tensor) -> None:
    """Raise `InvalidInput` unless these are images of colours or greys."""
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InvalidInput(f"this network reads images (batch, 3 or 1, H, W), got {tuple(images.shape)}")


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
