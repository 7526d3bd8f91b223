"""From a name, a path, a hub id or a callable to a pipeline."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fewstep import zoo
from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import PREDICTIONS
from fewstep.pipeline.assemble import Parts, component_of, of_component, of_folder
from fewstep.pipeline.cache import TensorCache
from fewstep.pipeline.identity import identity_of
from fewstep.pipeline.original import Original, is_original
from fewstep.pipeline.pipeline import Pipeline
from fewstep.pipeline.source import PICKLES, fetched, is_hub_id
from fewstep.pipeline.text import TextPipeline
from fewstep.pipeline.tuned import plans_of
from fewstep.zoo import container

DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16")}
MOST_VALUES = 1 << 28
"""Most numbers in one sample of a callable."""


def load(
    source: str | os.PathLike[str] | Callable[..., Any],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
    cache: TensorCache | None = None,
    config: str | os.PathLike[str] | None = None,
    schedule: Schedule | None = None,
    prediction: str | None = None,
    sample_shape: Sequence[int] | None = None,
    classes: int = 0,
    digest: str | None = None,
) -> Pipeline | TextPipeline:
    """The pipeline of a model.

    Args:
        source: the name of a shipped model ("digits", "scenes"); the path of a .safetensors file that fewstep trained;
            a folder in the format of diffusers, or its id on the Hugging Face hub ("org/name"); the folder of one
            network in that format, or the .safetensors file in it; an original checkpoint, which is one .safetensors
            file with all parts (Stable Diffusion 1, 2, XL and 3, FLUX); or a callable `network(x, t)`.
        device: where the model runs; `dtype` in what: "float32" (the default), "float16" or "bfloat16". Of callables
            modules alone can be converted, a copy of them, and None leaves them as they are.
        variant: of the files of weights, such as "fp16".
        allow_pickle: load weights that are there only as a pickle, as weights alone (`weights_only=True`).
        cache: of prompt embeddings; by default one of this pipeline's own, in memory.
        config: for an original checkpoint, a folder or an id on the hub in the format of diffusers with the
            configurations, tokenizers and scheduler of its kind, and with the weights of parts that the file does not
            hold. None is the id that diffusers takes for the file's kind.
        schedule, prediction: of a callable or of one network alone, as in `fewstep.Network`.
        sample_shape: (C, H, W) of what a callable draws. With `classes` above 0 it is called with `label=` too.
        digest: of a callable, a text that changes whenever what it computes does, such as a hash of its weights' file.
            A module is known by its weights without one. Any other callable is then another model each time it is
            loaded, so that pictures, benches and plans of an earlier one are not taken for its own.

    Raises:
        FileNotFoundError: there is no file at the path.
        InvalidInput: for an unknown name, and for a file that is missing, damaged or not of a known kind.
    """
    given = {
        "schedule": schedule, "prediction": prediction, "sample_shape": sample_shape, "classes": classes or None,
        "digest": digest,
    }  # fmt: skip
    place: dict[str, Any] = {"device": device, "dtype": _dtype(dtype)}
    header = _header(source)
    if header is not None and is_original(header):
        _refuse_given(given, f"{source} is a whole model, whose config says them")
        parts = Original(header, config, device, place["dtype"], variant, allow_pickle)
        return of_folder(parts, _name(header.path.stem), cache)
    if config is not None:
        raise InvalidInput(
            f"config is for an original checkpoint, one .safetensors file with all parts, and {str(source)[:200]} is "
            "none: leave it out"
        )
    if callable(source):
        place["dtype"] = None if dtype is None else place["dtype"]
        return _of_callable(source, **place, **{**given, "classes": classes})
    path = Path(source)
    if isinstance(source, str) and source in zoo.SHIPPED:
        _refuse_given(given, f"the shipped model {source!r} knows its own")
        path = zoo.shipped_path(source)
        if path.is_dir():
            return of_folder(Parts(path, device, place["dtype"], variant, allow_pickle), source, cache)
        return _of_zoo(path, source, **place)
    if header is not None:
        if "fewstep" in header.metadata:
            _refuse_given(given, f"{path} says its own")
            return _of_zoo(path, _name(path.stem), **place)
        path = component_of(path)
    elif path.is_file() and path.suffix not in PICKLES:
        return _of_zoo(path, _name(path.stem), **place)
    elif not path.exists() and isinstance(source, str) and is_hub_id(source):
        path = fetched(source, variant, allow_pickle)
    parts = Parts(path, device, place["dtype"], variant, allow_pickle)
    if (path / "model_index.json").is_file():
        _refuse_given(given, f"{path} says its own")
        return of_folder(parts, _name(str(source)), cache)
    if (path / "config.json").is_file():
        _refuse_given({"digest": digest}, f"{path} is known by its weights")
        return of_component(parts, _name(path.name), schedule, prediction)
    raise _unknown(str(source), path)


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


def _refuse_given(given: Mapping[str, Any], why: str) -> None:
    twice = [name for name, value in given.items() if value is not None]
    if twice:
        raise InvalidInput(f"{', '.join(twice)} are for a callable or one network alone, and {why}: leave them out")


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    if dtype not in DTYPES.values():
        raise unknown_name("dtype", str(dtype).removeprefix("torch."), DTYPES)
    return dtype  # type: ignore[return-value]


def _name(text: str) -> str:
    return "".join(filter(str.isprintable, text.rstrip("/").split("/")[-1]))[:100] or "model"


def _of_zoo(path: Path, name: str, device: torch.device | str, dtype: torch.dtype) -> Pipeline:
    loaded = zoo.load(path)
    spec = loaded.spec
    return Pipeline(
        network=loaded.network.to(device, dtype),
        name=name,
        digest=loaded.digest,
        schedule=spec.schedule,
        prediction=spec.prediction,
        sample_shape=spec.sample_shape,
        classes=spec.classes,
        value_range=spec.value_range,
        device=device,
        dtype=dtype,
        plans=plans_of(path),
    )


def _of_callable(
    network: Callable[..., Any],
    schedule: Schedule | None,
    prediction: str | None,
    sample_shape: Sequence[int] | None,
    classes: int,
    digest: str | None,
    device: torch.device | str,
    dtype: torch.dtype | None,
) -> Pipeline:
    missing = [
        n for n, v in (("schedule", schedule), ("prediction", prediction), ("sample_shape", sample_shape)) if v is None
    ]
    if missing or schedule is None or prediction is None or sample_shape is None:
        raise InvalidInput(f"a callable says nothing of itself: give {', '.join(missing)} too")
    if not isinstance(schedule, Schedule):
        raise InvalidInput(f"schedule must be one of fewstep.schedules, got {type(schedule).__name__}")
    if prediction not in PREDICTIONS:
        raise unknown_name("prediction type", str(prediction), PREDICTIONS)
    shape = tuple(sample_shape)
    total = 1
    for length in shape:
        total *= length if type(length) is int and length > 0 else MOST_VALUES + 1
    if len(shape) != 3 or total > MOST_VALUES:
        raise InvalidInput(f"sample_shape must be (C, H, W), at most {MOST_VALUES:,} values, got {sample_shape!r}")
    if type(classes) is not int or not 0 <= classes <= 10**6:
        raise InvalidInput(f"classes must be a whole number from 0 to 1000000, got {classes!r}")
    kind = network if hasattr(network, "__qualname__") else type(network)
    name = _name(kind.__qualname__.replace("<", "").replace(">", "").split(".")[-1])
    facts = schedule.spec, prediction, list(shape), classes
    own = identity_of(network, digest, *facts)
    running = network if dtype is None else _converted(network, device, dtype)
    runs = own if running is network else identity_of(running, digest, *facts)
    return Pipeline(
        network=running,
        name=name,
        digest=runs.digest,
        anonymous=runs.anonymous,
        in_float32=None if running is network else lambda: own.digest,
        schedule=schedule,
        prediction=prediction,
        sample_shape=shape,
        classes=classes,
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
