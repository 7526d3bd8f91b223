"""From a name, a path, a hub id or a callable to a model."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict, Unpack

import torch

from fewstep import zoo
from fewstep.core.errors import InvalidInput, shown, unknown_name
from fewstep.core.schedule import Schedule
from fewstep.denoise.prediction import PREDICTIONS
from fewstep.denoise.row import RowFacts
from fewstep.drawing.overlay import Overlay, merged
from fewstep.models.adapted import Adapted, is_adapted
from fewstep.models.assembly import Parts, Place, component_of, of_component, of_folder, recommended_of
from fewstep.models.bare import Bare
from fewstep.models.cache import TensorCache
from fewstep.models.codec import Pixels
from fewstep.models.conditioner import Labels
from fewstep.models.defaults import CLASS_GUIDANCE, SHIPPED, of_classes
from fewstep.models.folder import PICKLES, fetched_whole, is_hub_id
from fewstep.models.identity import Identity, in_dtype, of_callable
from fewstep.models.lora import Loras, lora_files, refuse
from fewstep.models.model import Model, TeacherFacts, class_model
from fewstep.models.original import Original, is_original
from fewstep.models.plans import plans_of
from fewstep.models.quiet import quiet
from fewstep.models.statements import SILENT, Claims
from fewstep.run.device import checked_device
from fewstep.zoo import container

DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16")}
_NAMED = ("spec", "device", "dtype", "prediction", "zero_snr", "lora")
MOST_VALUES = 1 << 28
"""Most numbers in one sample of a callable."""


@dataclass(frozen=True)
class NetworkSpec:
    """What a network alone does not say.

    Attributes:
        schedule, prediction: as in `fewstep.Network`.
        sample_shape: (C, H, W) of what a callable draws.
        classes: above 0 a callable is called with `label=` too, whole numbers up to `classes`, the null class.
        digest: of a callable, a text that changes whenever what it computes does, such as a hash of its weights' file.
            A module is known by its weights. Without a digest, any other callable is another model each time it is
            loaded, and does not take pictures, benches and plans of an earlier one for its own.
    """

    schedule: Schedule | None = None
    prediction: str | None = None
    sample_shape: Sequence[int] | None = None
    classes: int = 0
    digest: str | None = None


class Files(TypedDict, total=False):
    """How the files of a model are read, as arguments of `fewstep.load`."""

    variant: str | None
    allow_pickle: bool
    config: str | os.PathLike[str] | None
    cache: TensorCache | None


def load_model(
    source: str | os.PathLike[str] | Callable[..., Any], place: Place, spec: NetworkSpec | None = None
) -> Model:
    """The model of a source; see `fewstep.load`."""
    header = _header(source)
    if header is not None and is_original(header):
        _refuse(spec, f"{source} is a whole model, whose config says them")
        with quiet():
            return of_folder(Original(header, place), _name(header.path.stem))
    if place.config is not None:
        raise InvalidInput(
            "config is for an original checkpoint, one .safetensors file with all parts, and "
            f"{str(source)[:200]} is not one: leave it out"
        )
    if callable(source):
        refuse(place.lora, "a callable")
        _refuse_claims(place, "a callable has them in spec=fewstep.NetworkSpec(schedule, prediction)")
        return _of_callable(source, spec or NetworkSpec(), place)
    path = Path(source)
    if isinstance(source, str) and source in zoo.SHIPPED:
        _refuse(spec, f"the shipped model {source!r} knows its own")
        path = zoo.shipped_path(source)
        _refuse_claims(place, f"the shipped model {source!r} knows its own")
        return (
            of_folder(_parts(path, place), source) if path.is_dir() else _of_zoo(path, source, place, SHIPPED[source])
        )
    if header is not None:
        if "fewstep" in header.metadata:
            _refuse(spec, f"{path} says its own")
            _refuse_claims(place, f"{path} says its own")
            return _of_zoo(path, _name(path.stem), place)
        path = component_of(path)
    elif path.is_file() and path.suffix not in PICKLES:
        return _of_zoo(path, _name(path.stem), place)
    elif not path.exists() and isinstance(source, str) and is_hub_id(source):
        path = fetched_whole(source, place.variant, place.allow_pickle)
    parts = _parts(path, place)
    if (parts.folder / "model_index.json").is_file():
        _refuse(spec, f"{path} says its own")
        return of_folder(parts, _name(str(source)))
    if (path / "config.json").is_file():
        spec = spec or NetworkSpec()
        _refuse(replace(spec, schedule=None, prediction=None), f"{path} says its own, but for schedule and prediction")
        if spec.schedule is not None or spec.prediction is not None:
            _refuse_claims(place, "spec says them")
        return of_component(parts, _name(path.name), spec.schedule, spec.prediction)
    raise _unknown(str(source), path)


def load_bare(path: Path, place: Place, seed: int) -> Model:
    """The model of a folder whose network is a configuration alone, with weights by a seed; see `is_bare`."""
    return of_folder(Bare(path, place, seed), _name(str(path)))


def _parts(path: Path, place: Place) -> Parts:
    """The parts of a folder, which may hold changes of a shipped model alone."""
    if not is_adapted(path):
        return Parts(path, place)
    _refuse_claims(place, f"{path} is made of a shipped model, which knows its own")
    return Adapted(path, place)


def recommended_by(source: str) -> Overlay:
    """What the model of a name or path recommends, as far as its small files say. Loads and fetches nothing."""
    path = zoo.shipped_path(source) if source in zoo.SHIPPED else Path(source)
    if (path / "model_index.json").is_file() or is_adapted(path):
        return recommended_of(_parts(path, Place()))
    header = _header(path) if path.is_file() else None
    if header is None or "fewstep" not in header.metadata:
        return {}
    document = header.document("fewstep", "a fewstep model")
    schedule, training = (_mapping(document.get(name)) for name in ("schedule", "training"))
    own, usual = recommended_in(path, training), of_classes(str(schedule.get("kind")))
    return merged(usual, {"guidance": {"scale": CLASS_GUIDANCE}}, SHIPPED.get(source, {}), own)


def _mapping(value: object) -> Mapping[str, Any]:
    """What a file holds where a mapping belongs; empty where it holds something else."""
    return value if isinstance(value, Mapping) else {}


def place_of(
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
    claims: Claims = SILENT,
    lora: Loras = None,
    **files: Unpack[Files],
) -> Place:
    """Where and how a model is loaded, by the arguments of `fewstep.load`. Raises `InvalidInput` as that does."""
    for name in files:
        if name not in Files.__annotations__:
            raise unknown_name("argument", name, (*Files.__annotations__, *_NAMED))
    cache = files.get("cache")
    return Place(
        checked_device(device),
        _dtype(dtype),
        files.get("variant"),
        bool(files.get("allow_pickle")),
        files.get("config"),
        TensorCache() if cache is None else cache,
        claims,
        lora_files(lora),
    )


def _header(source: object) -> container.Header | None:
    """The checked header of a .safetensors file; None for sources of other kinds."""
    if not isinstance(source, str | os.PathLike):
        return None
    path = Path(source)
    return container.inspect(path) if path.suffix == ".safetensors" and not path.is_dir() else None


def _unknown(model: str, path: Path) -> InvalidInput:
    if path.is_dir():
        return InvalidInput(
            f"{path} is a folder without model_index.json (a whole diffusers model) or config.json (one network): give "
            "the folder that save_pretrained wrote, or a .safetensors file in it"
        )
    if path.is_file():
        return InvalidInput(
            f"{path} is a pickle by its name, and opening one can run any code: give safetensors, or a diffusers folder"
        )
    error = unknown_name("model", model, zoo.SHIPPED)
    return InvalidInput(
        f"{error}; or give the path of a .safetensors file that `fewstep train` wrote, of a diffusers folder, or an id "
        "on the hub such as 'org/name'"
    )


def _refuse(spec: NetworkSpec | None, why: str) -> None:
    given = [] if spec is None else [name for name, value in vars(spec).items() if value not in (None, 0)]
    if given:
        raise InvalidInput(f"{', '.join(given)} are for a callable or one network alone, and {why}: leave them out")


def _refuse_claims(place: Place, why: str) -> None:
    if names := place.claims.names:
        raise InvalidInput(f"{' and '.join(names)}: {why}; leave {'it' if len(names) == 1 else 'them'} out")


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None:
        return None
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    if dtype not in DTYPES.values():
        raise unknown_name("dtype", str(dtype).removeprefix("torch."), DTYPES)
    return dtype  # type: ignore[return-value]


def _name(text: str) -> str:
    return "".join(filter(str.isprintable, text.rstrip("/").split("/")[-1]))[:100] or "model"


def _of_zoo(path: Path, name: str, place: Place, recommended: Overlay | None = None) -> Model:
    refuse(place.lora, name)
    loaded = zoo.load(path)
    spec = loaded.spec
    own = recommended_in(path, spec.training)
    return class_model(
        loaded.network.to(place.device, place.dtype),
        Labels(spec.classes, distilled=spec.config.guidance),
        Pixels(spec.value_range),
        spec.sample_shape,
        merged(recommended or {}, own),
        schedule=spec.schedule,
        prediction=spec.prediction,
        time_scale=spec.time_scale,
        sigma_data=spec.sigma_data or Model.sigma_data,
        rows=RowFacts(spec.config.second_time, spec.config.guesses),
        identity=Identity(name, loaded.digest, in_dtype(place.dtype)),
        device=place.device,
        dtype=place.dtype,
        plans=plans_of(path),
        teacher=TeacherFacts.of(spec.training),
    )


def recommended_in(path: Path, training: Mapping[str, Any]) -> Overlay:
    """What a file recommends, in its facts of training: that of a student. Empty where it says nothing."""
    found = training.get("recommended", {})
    known = isinstance(found, Mapping) and set(found) <= {"sampling", "guidance"}
    if not known or not all(isinstance(value, Mapping) for value in found.values()):
        raise InvalidInput(f"{path} recommends {shown(found)}; it may hold sampling and guidance")
    return found


def _of_callable(network: Callable[..., Any], spec: NetworkSpec, place: Place) -> Model:
    needed = {"schedule": spec.schedule, "prediction": spec.prediction, "sample_shape": spec.sample_shape}
    missing = [name for name, value in needed.items() if value is None]
    if missing or spec.schedule is None or spec.prediction is None or spec.sample_shape is None:
        raise InvalidInput(
            f"a callable does not say how to read it: give {', '.join(missing)} in fewstep.NetworkSpec too"
        )
    schedule, prediction, shape, classes = spec.schedule, spec.prediction, tuple(spec.sample_shape), spec.classes
    if not isinstance(schedule, Schedule):
        raise InvalidInput(f"schedule must be one of fewstep.schedules, got {type(schedule).__name__}")
    if prediction not in PREDICTIONS:
        raise unknown_name("prediction type", str(prediction), PREDICTIONS)
    positive = all(type(length) is int and length > 0 for length in shape)
    if len(shape) != 3 or not positive or math.prod(shape) > MOST_VALUES:
        raise InvalidInput(f"sample_shape must be (C, H, W), at most {MOST_VALUES:,} values, got {spec.sample_shape!r}")
    if type(classes) is not int or not 0 <= classes <= 10**6:
        raise InvalidInput(f"classes must be a whole number from 0 to 1000000, got {classes!r}")
    kind = network if hasattr(network, "__qualname__") else type(network)
    name = _name(kind.__qualname__.replace("<", "").replace(">", "").split(".")[-1])
    identity = of_callable(name, network, spec.digest, schedule.spec, prediction, list(shape), classes)
    device, dtype = place.device, place.asked
    running = network if dtype is None else _converted(network, device, dtype)
    if running is not network:
        identity = replace(identity, variant=in_dtype(dtype))
    return class_model(
        running,
        Labels(classes),
        Pixels(),
        shape,
        schedule=schedule,
        prediction=prediction,
        identity=identity,
        device=device,
        dtype=dtype,
    )


def _converted(network: Callable[..., Any], device: torch.device | str, dtype: torch.dtype) -> torch.nn.Module:
    """The module in `dtype`: a copy, unless it is in that already."""
    if not isinstance(network, torch.nn.Module):
        raise InvalidInput(
            f"dtype converts the weights of a torch.nn.Module, and a {type(network).__name__} shows none: convert what "
            "it calls, and leave dtype out"
        )
    tensors = [*network.parameters(), *network.buffers()]
    if all(tensor.dtype is dtype for tensor in tensors if tensor.is_floating_point()):
        return network
    return copy.deepcopy(network).to(device, dtype)
