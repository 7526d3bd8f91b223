"""The file of a trained network: its weights, and what they mean, in one safetensors file.

The metadata hold one JSON document, `fewstep`: the architecture and its config, what the output is
(prediction type), the noise schedule, the range of the data's values, and how it was trained. Version 2 says
`sigma_data` too, of EDM's preconditioning; all other files are written as version 1, which older readers know.
A file is checked in this order: size, header, document, names and shapes of the tensors against the
architecture (built without memory), and that every weight is finite. So what a file can ask for is bounded by
its size.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewstep import schedules
from fewstep.core.errors import InvalidInput, shown, unknown_name
from fewstep.denoise.prediction import PREDICTIONS
from fewstep.zoo import container
from fewstep.zoo.network import UNet, UNetConfig, skeleton

PLAIN, PRECONDITIONED = 1, 2
"""Versions of the document; the second has `sigma_data`."""
MOST_DEVIATION = 1e6
"""Of the data; the least is its inverse."""
ARCHITECTURE = "unet"
_FIELDS = (
    "version",
    "architecture",
    "config",
    "prediction",
    "schedule",
    "sample_shape",
    "classes",
    "value_range",
    "training",
)


@dataclass(frozen=True)
class Spec:
    """What the weights mean.

    Attributes:
        config: the architecture's shape; it also gives `sample_shape` and `classes`.
        prediction: "epsilon", "sample", "v_prediction", "flow" or "edm".
        schedule: the noise schedule; the network's `t` is this schedule's time times `time_scale`, and for "edm"
            log(sigma / alpha) / 4.
        value_range: least and greatest value of the data.
        training: facts about the training, any JSON values (seed, steps, command, ...).
        sigma_data: standard deviation of the data, for "edm", which needs it; None for all others.
    """

    config: UNetConfig
    prediction: str
    schedule: schedules.Schedule
    value_range: tuple[float, float]
    training: Mapping[str, Any]
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.config, UNetConfig):
            raise InvalidInput(f"config is a {type(self.config).__name__}; it has to be a UNetConfig")
        if self.prediction not in PREDICTIONS:
            raise unknown_name("prediction type", str(self.prediction), PREDICTIONS)
        if not isinstance(self.schedule, schedules.Schedule):
            raise InvalidInput(f"schedule is a {type(self.schedule).__name__}; give one of fewstep.schedules")
        pair = self.value_range
        if not (
            isinstance(pair, (tuple, list)) and len(pair) == 2 and all(map(_is_finite, pair)) and pair[0] < pair[1]
        ):
            raise InvalidInput(f"value_range is {pair!r}; it has to be two finite numbers, the smaller first")
        object.__setattr__(self, "value_range", (float(pair[0]), float(pair[1])))
        if not isinstance(self.training, Mapping):
            raise InvalidInput(f"training is a {type(self.training).__name__}; it has to be a mapping of JSON values")
        if self.prediction == "edm" and self.sigma_data is None:
            raise InvalidInput(
                "edm's preconditioning needs sigma_data, the standard deviation of the data; 0.5 is usual"
            )
        object.__setattr__(self, "sigma_data", checked_sigma_data(self.prediction, self.sigma_data))

    @property
    def sample_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image."""
        return self.config.sample_shape

    @property
    def classes(self) -> int:
        """Number of classes; the label `classes` is the null class."""
        return self.config.classes

    @property
    def time_scale(self) -> float:
        """What a time of the schedule is multiplied by before the network is told: a flow's go from 0 to 1, and the
        network tells times from 0 to 1,000 apart. EDM's preconditioning tells no time of the schedule.
        """
        return 1000.0 if self.schedule.kind == "flow" and self.prediction != "edm" else 1.0

    def to_json(self) -> dict[str, Any]:
        """The document that the file holds."""
        preconditioning = {} if self.sigma_data is None else {"sigma_data": self.sigma_data}
        return {
            "version": PRECONDITIONED if preconditioning else PLAIN,
            "architecture": ARCHITECTURE,
            "config": self.config.to_json(),
            "prediction": self.prediction,
            "schedule": self.schedule.spec,
            "sample_shape": list(self.sample_shape),
            "classes": self.classes,
            "value_range": list(self.value_range),
            "training": dict(self.training),
            **preconditioning,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Spec:
        """The inverse of `to_json`. Raises `InvalidInput`, naming the field."""
        version = document.get("version")
        if version not in (PLAIN, PRECONDITIONED) or isinstance(version, bool):
            raise InvalidInput(
                f"format version {version!r}; this fewstep reads versions {PLAIN} and {PRECONDITIONED}. "
                "Install the fewstep that wrote the file, or train again"
            )
        fields = {*_FIELDS, "sigma_data"} if version == PRECONDITIONED else {*_FIELDS}
        missing, unknown = fields - set(document), set(document) - fields
        if missing or unknown:
            raise InvalidInput(f"the description lacks {sorted(missing)} and has unknown {sorted(unknown)[:8]}")
        if document["architecture"] != ARCHITECTURE:
            raise unknown_name("architecture", str(document["architecture"])[:80], [ARCHITECTURE])
        config = UNetConfig.from_json(document["config"])
        spec = cls(
            config=config,
            prediction=document["prediction"],
            schedule=_schedule(document["schedule"]),
            value_range=document["value_range"],
            training=document["training"],
            sigma_data=document.get("sigma_data"),
        )
        for name, implied in (("sample_shape", list(config.sample_shape)), ("classes", config.classes)):
            if document[name] != implied:
                raise InvalidInput(f"{name} is {document[name]!r} but the config says {implied}; the file is damaged")
        return spec


@dataclass(frozen=True)
class Loaded:
    """A network ready to sample from.

    Attributes:
        network: float32, in eval mode, without gradients (`network.requires_grad_(True)` turns them on).
        spec: what its output means.
        digest: 16 hexadecimal digits of a SHA-256 over the spec and every weight.
    """

    network: UNet
    spec: Spec
    digest: str


def save(path: str | os.PathLike[str], network: UNet, spec: Spec) -> str:
    """Write the network's weights as float32, and the spec, in one move. Returns the digest.

    Raises:
        InvalidInput: the spec's config is not the network's, or a weight is not finite. Nothing is written
        then.
    """
    if network.config != spec.config:
        raise InvalidInput(
            f"the spec describes {spec.config}, but the network is {network.config}; pass its own config"
        )
    weights = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in network.state_dict().items()}
    _check_finite(weights, "the network")
    container.write(path, weights, {"fewstep": spec.to_json()})
    return digest(weights, spec)


def load(path: str | os.PathLike[str], *, max_bytes: int = container.SIZE_LIMIT) -> Loaded:
    """Read and check a file of `save`.

    Args:
        path: the .safetensors file.
        max_bytes: refuse larger files (default 64 MiB).

    Raises:
        FileNotFoundError: nothing is at `path`.
        InvalidInput: what is wrong, what is allowed, and what to do.
    """
    file = container.read(path, max_bytes)
    document = file.document("fewstep", "a fewstep model")
    try:
        spec = Spec.from_json(document)
    except ValueError as error:
        raise InvalidInput(f"{path}: {error}") from error
    network = skeleton(spec.config)
    _check_table(file, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    weights = {name: tensor.to(torch.float32) for name, tensor in file.tensors().items()}
    _check_finite(weights, str(path))
    network.load_state_dict(weights, assign=True)
    return Loaded(network.eval().requires_grad_(False), spec, digest(weights, spec))


def digest(weights: Mapping[str, Tensor], spec: Spec) -> str:
    """16 hexadecimal digits of a SHA-256 over the spec and the float32 weights, independent of their
    order."""
    return weights_digest(weights, json.dumps(spec.to_json(), sort_keys=True, allow_nan=False))


def weights_digest(weights: Mapping[str, Tensor], described: str) -> str:
    """`digest` where the network is described by any text."""
    state = hashlib.sha256(described.encode())
    for name in sorted(weights):
        tensor = weights[name].to("cpu", torch.float32).contiguous()
        state.update(f"\0{name}\0{tuple(tensor.shape)}\0".encode())
        state.update(tensor.numpy().astype("<f4", copy=False).tobytes())
    return state.hexdigest()[:16]


def checked_sigma_data(prediction: str, value: float | None) -> float | None:
    """A standard deviation of the data. Raises `InvalidInput` where it is none, or is given for another prediction."""
    if value is None:
        return None
    if prediction != "edm":
        raise InvalidInput(
            f"sigma_data is of edm's preconditioning, and the network predicts {prediction}: leave it out, or predict "
            "edm"
        )
    if not _is_finite(value) or not 1 / MOST_DEVIATION <= value <= MOST_DEVIATION:
        raise InvalidInput(
            f"sigma_data must be a number from {1 / MOST_DEVIATION:g} to {MOST_DEVIATION:g}, got {shown(value)}"
        )
    return float(value)


def _is_finite(value: object) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e30 and math.isfinite(value)
    )


def _schedule(spec: Any) -> schedules.Schedule:
    if not isinstance(spec, dict) or not isinstance(spec.get("kind"), str):
        raise InvalidInput(f"the schedule is {str(spec)[:80]}; it has to be an object with a `kind`")
    try:
        return schedules.from_spec(spec)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise InvalidInput(f"the schedule cannot be used: {error}") from error


def _check_table(file: container.Header, wanted: Mapping[str, tuple[int, ...]]) -> None:
    missing, unknown = sorted(set(wanted) - set(file.shapes)), sorted(set(file.shapes) - set(wanted))
    if missing or unknown:
        raise InvalidInput(
            f"{file.path}: {len(missing)} tensors are missing {missing[:4]} and {len(unknown)} are unknown "
            f"{unknown[:4]}; the file does not fit its own config. Fetch or train it again"
        )
    for name, shape in wanted.items():
        if file.shapes[name] != shape:
            raise InvalidInput(
                f"{file.path}: tensor {name!r} has shape {file.shapes[name]}, but the config needs {shape}; "
                "fetch or train it again"
            )
        if file.dtypes[name] not in ("F32", "F16", "BF16"):
            raise InvalidInput(
                f"{file.path}: tensor {name!r} has dtype {file.dtypes[name]}; allowed are F32, F16, BF16"
            )


def _check_finite(weights: Mapping[str, Tensor], owner: str) -> None:
    for name, tensor in weights.items():
        bad = int((~torch.isfinite(tensor)).sum())
        if bad:
            raise InvalidInput(
                f"{owner}: {bad} of {tensor.numel()} weights of tensor {name!r} are NaN or infinite; "
                "they have to be finite. Train it again, with a lower learning rate if training made them"
            )
