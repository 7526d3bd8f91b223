"""LoRA: files of low-rank changes to the weights of a model, merged into them when it is loaded.

    W + scale (alpha / r) B A          A (r, in), B (out, r)          Hu et al. 2021, arXiv 2106.09685

diffusers' converters read the layouts there are: its own, peft's, kohya's and those of several trainers of FLUX; peft
puts the changes where they belong and merges them. So a merged model costs no more than a plain one. B and A are in the
dtype that the model runs in, as in diffusers; their product is added in float32, and the sum is rounded once.

Every tensor of a file has to find its place. What has none, or is more than a LoRA, is refused and not dropped.
"""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewstep.core.errors import InvalidInput, shown
from fewstep.drawing.lora import LARGEST_SCALE, MOST_LORAS, LoRA
from fewstep.models.folder import content_digest
from fewstep.zoo import container
from fewstep.zoo.container import Header

Loras = Any
"""A path, a pair (path, scale), or a list of these."""
MIXINS = {
    "sd": "StableDiffusionLoraLoaderMixin",
    "sdxl": "StableDiffusionXLLoraLoaderMixin",
    "sd3": "SD3LoraLoaderMixin",
    "flux": "FluxLoraLoaderMixin",
    "sana": "SanaLoraLoaderMixin",
}
"""What reads the LoRAs of a family, by the name of its class in diffusers."""
_BOTH = ("text_encoder", "text_encoder_2")
TEXT_ENCODERS = {"sd": _BOTH[:1], "sdxl": _BOTH, "sd3": _BOTH, "flux": _BOTH[:1]}
"""The text encoders of a family that a LoRA may change, as in diffusers."""
SIZE_LIMIT = 4 << 30
FLOATS = ("F16", "BF16", "F32", "F64")
ADAPTER = "fewstep"
FOREIGN = {
    "dora_scale": "a DoRA in kohya's layout",
    "hada_": "a LoHa",
    "lokr_": "a LoKr",
    "oft_": "an OFT",
    "lora_mid": "a LoCon with a core of its own",
    ".diff": "whole differences of weights",
    "bundle_emb": "embeddings of words beside the LoRA",
}
"""Parts of tensors' names that mark what diffusers would drop, or another kind of adapter."""
DROPPED = {"flux": ("lora_te2_", "text_encoders.t5xxl.", "text_projection")}
"""Parts of names that diffusers leaves out of a LoRA of a family, without an error."""
METADATA = "lora_adapter_metadata"
"""Where diffusers writes how a LoRA was configured."""
CONFIGURED = ("lora_alpha", "use_rslora", "use_dora", "lora_bias", "fan_in_fan_out", "lora_dropout")
IDLE = ("task_type", "inference_mode", "base_model_name_or_path", "revision", "auto_mapping", "peft_version")
"""Settings that may be what they like: those of the formula, and those that do not act here."""
PLAIN = re.compile(r"[\w.^$]{1,500}")
"""What a name of modules in these settings may be made of, as peft takes it for a regular expression."""


@dataclass(frozen=True)
class LoraFile:
    """A LoRA that is to be merged: where it lies, how much of it, and what is known of it."""

    header: Header
    value: LoRA

    @property
    def path(self) -> Path:
        return self.header.path


def lora_files(given: Loras) -> tuple[LoraFile, ...]:
    """The LoRAs of an argument, their headers checked.

    Raises:
        FileNotFoundError: there is no file.
        InvalidInput: it is not a safetensors file, holds what is no LoRA, or the scale is out of range.
    """
    if given is None:
        return ()
    several = given if isinstance(given, list) else [given]
    if len(several) > MOST_LORAS:
        raise InvalidInput(f"at most {MOST_LORAS} LoRAs are merged, got {len(several)}: give fewer")
    return tuple(_file(*_pair(one)) for one in several)


def merge(loras: Sequence[LoraFile], family: str, modules: Mapping[str, Any]) -> None:
    """Merge LoRAs into the modules of a model, by part, the network first.

    Raises `InvalidInput` where one does not fit.
    """
    if not loras:
        return
    if family not in MIXINS:  # PixArt
        raise InvalidInput(
            f"a model of the kind {family} takes no LoRA in diffusers, nor here: leave lora out. Those that do are "
            f"{', '.join(MIXINS)}"
        )
    try:
        importlib.import_module("peft")
    except ImportError as error:
        raise InvalidInput("a LoRA needs peft: pip install 'fewstep[lora]'") from error
    network, *others = modules
    encoders = [part for part in others if part in TEXT_ENCODERS.get(family, ())]
    for one in loras:
        try:
            _merge(one, family, network, {part: modules[part] for part in (network, *encoders)})
        except InvalidInput:
            raise
        except Exception as error:
            why = " ".join(str(error).split())[:300]
            raise InvalidInput(
                f"{one.path} does not fit this model, of the kind {family}: {type(error).__name__}: {why}; give a LoRA "
                "that was trained for such a model"
            ) from error


def refuse(loras: Sequence[LoraFile], name: str) -> None:
    """Raise `InvalidInput` where there are LoRAs for a model that takes none."""
    if loras:
        raise InvalidInput(
            f"{loras[0].path}: {name} takes no LoRA, which changes text-to-image models of diffusers: leave lora out"
        )


def _merge(one: LoraFile, family: str, network: str, modules: Mapping[str, Any]) -> None:
    _check_settings(one.header)
    lost = [name for name in one.header.shapes for mark in DROPPED.get(family, ()) if mark in name]
    if lost:
        raise InvalidInput(
            f"{one.path} changes {shown(lost[0])}, which diffusers leaves out for a model of the kind {family}: remove "
            f"the {len(lost)} tensors of that kind from it, or give another"
        )
    mixin = getattr(importlib.import_module("diffusers.loaders.lora_pipeline"), MIXINS[family])
    state, alphas, metadata = _read(mixin, one, family, modules[network])
    parts = {part: {name for name in state if name.startswith(f"{part}.")} for part in modules}
    homeless = sorted(set(state).difference(*parts.values()))
    if homeless:
        raise InvalidInput(
            f"{one.path} has {len(homeless)} tensors for no part of this model that takes a LoRA, such as "
            f"{shown(homeless[0])}: give a LoRA that was trained for such a model"
        )
    for part, names in parts.items():
        if not names:
            continue
        settings = {"network_alphas": alphas, "adapter_name": ADAPTER, "metadata": metadata}
        own = {name: state[name] for name in names}
        if part != network:
            mixin.load_lora_into_text_encoder(own, text_encoder=modules[part], prefix=part, **settings)
        else:
            modules[part].load_lora_adapter(own, prefix=part, **settings)
        placed = _bake(modules[part], one)
        if placed != len(names):
            raise InvalidInput(
                f"{one.path} has {len(names)} tensors for {part}, and {placed} of them have a place in it: give a LoRA "
                "that was trained for such a model"
            )


def _read(mixin: Any, one: LoraFile, family: str, network: Any) -> tuple[dict[str, Any], Any, Any]:
    """(tensors by diffusers' names, alphas, how it was configured)."""
    options: dict[str, Any] = {"use_safetensors": True, "weight_name": one.path.name, "local_files_only": True}
    if family in ("sd", "sdxl"):
        options["unet_config"] = network.config
    if family == "flux":
        options["return_alphas"] = True
    found = mixin.lora_state_dict(str(one.path), return_lora_metadata=True, **options)
    state, *middle, metadata = found
    alphas = middle[0] if middle else None
    # SD3 and Sana have the alphas of their files in neither way
    left = [name for name in state if name.endswith(".alpha")]
    if left:
        raise InvalidInput(
            f"{one.path} has {shown(left[0])}, which diffusers does not read for a model of the kind {family}"
        )
    return state, alphas or None, metadata


def _bake(module: Any, one: LoraFile) -> int:
    """Put the merged weights in the place of peft's layers; how many tensors of the LoRA were in them."""
    kind = importlib.import_module("peft.tuners.tuners_utils").BaseTunerLayer
    layers: list[tuple[str, Any]] = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, kind)]
    placed = 0
    for name, layer in layers:
        base: Any = layer.get_base_layer()
        dtype = base.weight.dtype
        placed += sum(1 for key, _ in layer.named_parameters() if f".{ADAPTER}" in key)
        layer.float()
        layer.set_scale(ADAPTER, one.value.scale)
        layer.merge(safe_merge=True, adapter_names=[ADAPTER])  # a copy: the weights may lie in the file
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, base.to(dtype))
    module.__dict__.pop("peft_config", None)
    module._hf_peft_config_loaded = False
    module.eval().requires_grad_(False)
    return placed


def _pair(one: Any) -> tuple[Any, Any]:
    if isinstance(one, str | os.PathLike):
        return one, 1.0
    if isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], str | os.PathLike):
        return one
    raise InvalidInput(f"lora is a path, a pair (path, scale), or a list of these, got {shown(one)}")


def _file(source: str | os.PathLike[str], scale: Any) -> LoraFile:
    path = Path(source)
    number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not number or not -LARGEST_SCALE <= scale <= LARGEST_SCALE:
        got = "a larger one" if number and abs(scale) > LARGEST_SCALE**2 else shown(scale)
        raise InvalidInput(f"the scale of a LoRA is a number from {-LARGEST_SCALE:g} to {LARGEST_SCALE:g}, got {got}")
    if not path.exists():
        raise FileNotFoundError(f"no file at {path}: give the path of a LoRA, which is a .safetensors file")
    if not path.is_file():
        raise InvalidInput(f"the LoRA {path} is not a regular file: give a .safetensors file")
    header = container.read(path, SIZE_LIMIT)
    for mark, words in FOREIGN.items():
        found = next((name for name in header.shapes if mark in name), None)
        if found is not None:
            raise InvalidInput(f"{path} holds {words} ({shown(found)}), which fewstep does not merge: give a LoRA")
    if not any("lora" in name for name in header.shapes):
        raise InvalidInput(f"{path} holds no LoRA: no name of its {len(header.shapes)} tensors has 'lora' in it")
    for name, dtype in header.dtypes.items():
        if dtype not in FLOATS:
            raise InvalidInput(
                f"{path} holds {shown(name)} in {dtype}, and a LoRA is in {', '.join(FLOATS)}: convert it"
            )
    return LoraFile(header, LoRA(file=content_digest(path), scale=float(scale)))


def _check_settings(header: Header) -> None:
    """Raise `InvalidInput` where the settings beside a LoRA would make peft do more than the formula."""
    text = header.metadata.get(METADATA)
    if text is None:
        return
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{header.path}: the metadata {METADATA!r} are not JSON ({error})") from error
    if not isinstance(settings, dict):
        raise InvalidInput(f"{header.path}: the metadata {METADATA!r} are {shown(settings)}, not an object")
    usual = importlib.import_module("peft").LoraConfig().to_dict()
    ranks = {shape[0] for name, shape in header.shapes.items() if ("lora_A" in name or "down" in name) and shape}
    for key, value in settings.items():
        name = key.rpartition(".")[2]
        if not _is_plain(name, value, ranks) and (name not in usual or value != usual[name]):
            raise InvalidInput(
                f"{header.path} has the setting {shown(key)}, {shown(value)}, which fewstep does not know"
            )


def _is_plain(name: str, value: Any, ranks: set[int]) -> bool:
    """Whether a setting is one of the formula, with ranks that are those of the file."""
    if name in ("rank_pattern", "alpha_pattern"):
        if not isinstance(value, dict) or not all(PLAIN.fullmatch(key) for key in value):
            return False
        return name == "alpha_pattern" or all(rank in ranks for rank in value.values())
    if name == "target_modules":
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if name == "init_lora_weights":
        return value in (True, False, "gaussian")
    return (value in ranks if name == "r" else name in CONFIGURED) or name in IDLE
