"""From a name, a path, a hub id or a callable to a pipeline."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fewstep import schedules, zoo
from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import PREDICTIONS
from fewstep.pipeline import families, source
from fewstep.pipeline.cache import TensorCache
from fewstep.pipeline.decode import Decoder
from fewstep.pipeline.encode import Reader, TextEncoder
from fewstep.pipeline.families import OTHERS, TEXT_FAMILIES, Family, prediction_of
from fewstep.pipeline.parts import checked_config, load_part, load_tokenizer
from fewstep.pipeline.pipeline import Pipeline
from fewstep.pipeline.text import TextPipeline
from fewstep.zoo import container

DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16")}
MOST_VALUES = 1 << 28
"""Most numbers in one sample of a callable."""


def load(
    model: str | os.PathLike[str] | Callable[..., Any],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | str | None = None,
    variant: str | None = None,
    allow_pickle: bool = False,
    cache: TensorCache | None = None,
    schedule: Schedule | None = None,
    prediction: str | None = None,
    sample_shape: Sequence[int] | None = None,
    classes: int = 0,
) -> Pipeline | TextPipeline:
    """The pipeline of a model.

    Args:
        model: the name of a shipped model ("digits"); the path of a .safetensors file that fewstep trained; a folder in
            the format of diffusers, or its id on the Hugging Face hub ("org/name"); the folder of one network in that
            format, or the .safetensors file in it; or a callable `network(x, t)`.
        device: where the model runs; `dtype` in what: "float32" (the default), "float16" or "bfloat16".
        variant: of the files of weights, such as "fp16".
        allow_pickle: load weights that are there only as a pickle, as weights alone (`weights_only=True`).
        cache: of prompt embeddings; by default one of this pipeline's own, in memory.
        schedule, prediction: of a callable or of one network alone, as in `fewstep.Network`.
        sample_shape: (C, H, W) of what a callable draws. With `classes` above 0 it is called with `label=` too.

    Raises:
        FileNotFoundError: there is no file at the path.
        InvalidInput: for an unknown name, and for a file that is missing, damaged or not of a known kind.
    """
    given = {"schedule": schedule, "prediction": prediction, "sample_shape": sample_shape, "classes": classes or None}
    place = {"device": device, "dtype": _dtype(dtype)}
    if callable(model):
        return _of_callable(model, **place, **{**given, "classes": classes})
    path = Path(model)
    if isinstance(model, str) and model in zoo.SHIPPED:
        _refuse_given(given, f"the shipped model {model!r} knows its own")
        return _of_zoo(zoo.load_shipped(model), model, **place)
    if path.suffix == ".safetensors" and not path.is_dir():
        if "fewstep" in container.inspect(path).metadata:
            _refuse_given(given, f"{path} says its own")
            return _of_zoo(zoo.load(path), _name(path.stem), **place)
        path = _component_of(path)
    elif path.is_file() and path.suffix not in source.PICKLES:
        return _of_zoo(zoo.load(path), _name(path.stem), **place)
    elif not path.exists() and isinstance(model, str) and source.is_hub_id(model):
        path = source.fetched(model, variant, allow_pickle)
    files = {"variant": variant, "allow_pickle": allow_pickle}
    if (path / "model_index.json").is_file():
        _refuse_given(given, f"{path} says its own")
        return _of_folder(path, _name(str(model)), cache, **place, **files)
    if (path / "config.json").is_file():
        return _of_component(path, schedule, prediction, **place, **files)
    raise _unknown(str(model), path)


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


def _of_zoo(loaded: zoo.Loaded, name: str, device: torch.device | str, dtype: torch.dtype) -> Pipeline:
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
    )


def _of_callable(
    network: Callable[..., Any],
    schedule: Schedule | None,
    prediction: str | None,
    sample_shape: Sequence[int] | None,
    classes: int,
    device: torch.device | str,
    dtype: torch.dtype,
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
    weights = network.state_dict() if isinstance(network, torch.nn.Module) else {}
    return Pipeline(
        network=network,
        name=name,
        digest=_tensors_digest(weights, kind.__module__, kind.__qualname__, schedule.spec, prediction, list(shape)),
        schedule=schedule,
        prediction=prediction,
        sample_shape=shape,
        classes=classes,
        device=device,
    )


def _tensors_digest(weights: Mapping[str, torch.Tensor], *facts: Any) -> str:
    import hashlib

    state = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        state.update(f"\0{name}\0{tuple(tensor.shape)}\0{tensor.dtype}\0".encode())
        state.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]


def _component_of(path: Path) -> Path:
    """The folder of the network that a .safetensors file is the weights of."""
    folder = path.parent
    if (folder / "config.json").is_file() and path.name.partition(".")[0] in source.BASES:
        return folder
    raise InvalidInput(
        f"{path} holds weights without a configuration beside it, so what they are is not known. Convert it once with "
        "diffusers, StableDiffusionPipeline.from_single_file(path).save_pretrained(folder), and give the folder"
    )


def _of_component(
    folder: Path,
    schedule: Schedule | None,
    prediction: str | None,
    device: torch.device | str,
    dtype: torch.dtype,
    variant: str | None,
    allow_pickle: bool,
) -> Pipeline:
    """One network that needs no text: UNet2DModel."""
    kind = checked_config(folder / "config.json").get("_class_name")
    if kind != "UNet2DModel":
        whole = folder.parent
        hint = f"give the folder of the whole model, {whole}" if (whole / "model_index.json").is_file() else ""
        raise InvalidInput(
            f"{folder} is one part ({kind}) of a model, which alone cannot draw: "
            f"{hint or 'give the folder of the whole model, the one with model_index.json'}"
        )
    scheduler = folder.parent / "scheduler" / "scheduler_config.json"
    if schedule is None and scheduler.is_file():
        config = source.read_json(scheduler)
        schedule = schedules.from_diffusers(config)
        prediction = prediction or prediction_of(config, schedule.kind)
    if schedule is None or prediction is None:
        raise InvalidInput(f"{folder} is a network alone: give schedule and prediction too, as in fewstep.Network")
    return _of_unet(folder, _name(folder.name), schedule, prediction, device, dtype, variant, allow_pickle)


def _of_unet(
    folder: Path,
    name: str,
    schedule: Schedule,
    prediction: str,
    device: torch.device | str,
    dtype: torch.dtype,
    variant: str | None,
    allow_pickle: bool,
) -> Pipeline:
    module, weights = load_part(folder, "UNet2DModel", dtype, variant=variant, allow_pickle=allow_pickle)
    config = module.config
    side = config.sample_size
    if side is None:
        raise InvalidInput(f"{folder}/config.json has no sample_size, so the size of its images is not known: add it")
    height, width = (side, side) if isinstance(side, int) else side
    return Pipeline(
        network=partial(families.call_unet, module.to(device)),
        name=name,
        digest=source.digest_of([folder / "config.json", *weights.files], str(dtype), schedule.spec, prediction),
        schedule=schedule,
        prediction=prediction,
        sample_shape=(config.in_channels, height, width),
        classes=(config.num_class_embeds or 1) - 1,  # the last one is the null class
        device=device,
        dtype=dtype,
        time_scale=1000.0 if schedule.kind == "flow" else 1.0,
    )


def _of_folder(
    folder: Path,
    name: str,
    cache: TensorCache | None,
    device: torch.device | str,
    dtype: torch.dtype,
    variant: str | None,
    allow_pickle: bool,
) -> Pipeline | TextPipeline:
    index = source.read_json(folder / "model_index.json")
    kind = str(index.get("_class_name"))
    if kind not in TEXT_FAMILIES and kind not in OTHERS:
        raise unknown_name(f"kind of model in {folder / 'model_index.json'}:", kind, [*TEXT_FAMILIES, *OTHERS])
    scheduler = source.read_json(folder / "scheduler" / "scheduler_config.json")
    if scheduler.get("shift_terminal") or scheduler.get("invert_sigmas"):
        raise InvalidInput(f"{folder}/scheduler uses shift_terminal or invert_sigmas, which fewstep does not know")
    schedule = schedules.from_diffusers(scheduler)
    prediction = prediction_of(scheduler, schedule.kind)
    if kind in ("DDPMPipeline", "DDIMPipeline"):
        return _of_unet(folder / "unet", name, schedule, prediction, device, dtype, variant, allow_pickle)
    parts = _Parts(folder, index, device, dtype, variant, allow_pickle)
    if kind == "DiTPipeline":
        return _of_dit(parts, name, schedule, prediction)
    return _of_text(parts, TEXT_FAMILIES[kind], name, schedule, prediction, scheduler, cache)


class _Parts:
    """The parts of a folder, loaded one by one; `files` are those that were used."""

    def __init__(
        self,
        folder: Path,
        index: Mapping[str, Any],
        device: torch.device | str,
        dtype: torch.dtype,
        variant: str | None,
        allow_pickle: bool,
    ):
        self.folder, self.index, self.device, self.dtype = folder, index, device, dtype
        self.variant, self.allow_pickle = variant, allow_pickle
        self.files: dict[str, list[Path]] = {}

    def has(self, name: str) -> bool:
        """Whether the index names a part."""
        entry = self.index.get(name)
        return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None

    def module(self, name: str, kind: str, dtype: torch.dtype | None = None) -> Any:
        """The module of a part, on the device."""
        if not self.has(name):
            raise InvalidInput(f"{self.folder / 'model_index.json'} names no {name}, which the model needs")
        module, weights = load_part(
            self.folder / name, kind, dtype or self.dtype, variant=self.variant, allow_pickle=self.allow_pickle
        )
        self.files[name] = [self.folder / name / "config.json", *weights.files]
        return module.to(self.device)

    def tokenizer(self, name: str) -> Any:
        """The tokenizer of a part."""
        if not self.has(name):
            raise InvalidInput(f"{self.folder / 'model_index.json'} names no {name}, which the model needs")
        self.files[name] = sorted(file for file in (self.folder / name).glob("*") if file.is_file())
        return load_tokenizer(self.folder / name, str(self.index[name][1]))

    def vae(self) -> Decoder:
        """The VAE; one that says that it overflows in float16 stays in float32."""
        forced = checked_config(self.folder / "vae" / "config.json").get("force_upcast", True)
        return Decoder.of(self.module("vae", "AutoencoderKL", torch.float32 if forced else self.dtype))

    def digest(self, names: Sequence[str], *facts: Any) -> str:
        """Over the files of parts, the dtype and facts."""
        return source.digest_of([file for name in names for file in self.files[name]], str(self.dtype), *facts)


def _of_dit(parts: _Parts, name: str, schedule: Schedule, prediction: str) -> Pipeline:
    module, decoder = parts.module("transformer", "DiTTransformer2DModel"), parts.vae()
    config = module.config
    return Pipeline(
        network=partial(families.call_dit, module),
        name=name,
        digest=parts.digest(sorted(parts.files), schedule.spec, prediction),
        schedule=schedule,
        prediction=prediction,
        sample_shape=(config.in_channels, config.sample_size, config.sample_size),
        classes=config.num_embeds_ada_norm,
        device=parts.device,
        dtype=parts.dtype,
        decoder=decoder,
    )


def _of_text(
    parts: _Parts,
    family: Family,
    name: str,
    schedule: Schedule,
    prediction: str,
    scheduler: Mapping[str, Any],
    cache: TensorCache | None,
) -> TextPipeline:
    readers: dict[str, Reader] = {}
    for part, (kind, most) in family.encoders.items():
        if part in family.absent and not parts.has(part):
            continue
        tokenizer = parts.tokenizer(part.replace("text_encoder", "tokenizer"))
        model = parts.module(part, kind)
        length = most or min(tokenizer.model_max_length, model.config.max_position_embeddings)
        readers[part] = Reader(part, tokenizer, model, length)
    text_parts = sorted(parts.files)
    module, decoder = parts.module(family.part, family.kind), parts.vae()
    if family.channels(module.config) != decoder.channels:
        raise InvalidInput(
            f"the network of {parts.folder} takes {family.channels(module.config)} channels and its VAE makes "
            f"{decoder.channels}: a model for inpainting, or parts that do not belong together. Give another"
        )
    encoder = TextEncoder(
        readers,
        family.reads(module.config),
        parts.digest(text_parts, family.name, module.config.get("joint_attention_dim")),
        TensorCache() if cache is None else cache,
        skips=family.name in ("sd", "sdxl", "sd3"),
        lower=family.lower,
    )
    return TextPipeline(
        module=module,
        family=family,
        config=module.config,
        name=name,
        digest=parts.digest(sorted(parts.files), schedule.spec, prediction),
        schedule=schedule,
        prediction=prediction,
        encoder=encoder,
        decoder=decoder,
        scheduler=scheduler,
        zero_negative=bool(parts.index.get("force_zeros_for_empty_prompt", family.name == "sdxl")),
        dtype=parts.dtype,
        device=parts.device,
    )
