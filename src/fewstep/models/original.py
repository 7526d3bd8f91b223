"""Original checkpoints: one .safetensors file that holds the parts of a model under the names of its authors' code.

    unet, transformer   model.diffusion_model.      (or, for a network alone, nothing)
    vae                 first_stage_model.          vae.
    text_encoder        cond_stage_model.           conditioner.embedders.0.    text_encoders.clip_l.
    text_encoder_2      conditioner.embedders.1.    text_encoders.clip_g.
    T5                  text_encoders.t5xxl.

Such a file does not hold the parts' configurations, the tokenizers or the noise schedule: those come from a folder in
the format of diffusers, which needs no weights. diffusers' converters turn the names into diffusers'. Parts that the
file does not hold are loaded from the folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from fewstep.core.errors import InvalidInput, shown
from fewstep.models import folder as folders
from fewstep.models.assembly import Parts, Place
from fewstep.models.families import TEXT_FAMILIES
from fewstep.models.kinds import kind_of
from fewstep.models.parts import built, checked_config, filled, on_device
from fewstep.zoo.container import Header

NETWORK, T5 = "model.diffusion_model.", "text_encoders.t5xxl.transformer."
PREFIXES = {
    "vae": ("first_stage_model.", "vae."),
    "text_encoder": (
        "cond_stage_model.transformer.",
        "cond_stage_model.model.",
        "conditioner.embedders.0.transformer.",
        "text_encoders.clip_l.transformer.",
    ),
    "text_encoder_2": ("conditioner.embedders.1.model.", "text_encoders.clip_g.transformer."),
}
"""Where the tensors of a part may lie; those that end in ".model." are named as by OpenCLIP."""
MARKS = (
    "input_blocks.0.0.weight",
    "joint_blocks.0.context_block.adaLN_modulation.1.bias",
    "double_blocks.0.img_attn.norm.key_norm.scale",
)
"""A tensor that every UNet, every SD3 and every FLUX has, by its original name."""
_OTHERS = ("first_stage_model.", "vae.", "cond_stage_model.", "conditioner.", "text_encoders.", "model_ema.")


def is_original(header: Header) -> bool:
    """Whether a file is an original checkpoint of a layout that is known."""
    return any(prefix + mark in header.shapes for mark in MARKS for prefix in (NETWORK, ""))


class Original(Parts):
    """The parts of an original checkpoint.

    Args:
        header: of the file, checked.
        place: as in `Parts`; variant and pickles are for parts that the file does not hold. Its `config` is the folder
            with the parts' configurations and tokenizers, or its id on the hub; None is the id that diffusers takes
            for a model of this kind.

    Raises:
        InvalidInput: the configurations cannot be found.
    """

    remedy = "give a config that agrees"

    def __init__(self, header: Header, place: Place):
        folder, self.hub = _folder_of(header, place.config)
        super().__init__(folder, place)
        self.own = place.config is not None
        self.path = header.path
        self.header = header
        kind = kind_of(self.index)
        if kind not in TEXT_FAMILIES:
            raise InvalidInput(
                f"{folder} describes a {shown(self.index.get('_class_name'))}, and an original checkpoint is one of "
                f"{', '.join(TEXT_FAMILIES)}: give the config of one of them"
            )

    def has(self, name: str) -> bool:
        """Whether the index names a part; the T5 of SD3 is left out where neither the file nor the folder has it."""
        named = super().has(name)
        if name != "text_encoder_3" or not named:
            return named
        return bool(self._names(T5)) or any((self.folder / name).glob("*.safetensors"))

    def module(self, name: str, kind: str, dtype: torch.dtype | None = None) -> Any:
        """The module of a part, on the device: of the file, or else of the folder."""
        folder, dtype = self.part(name), dtype or self.place.dtype
        prefixes = (NETWORK, "") if name in ("unet", "transformer") else PREFIXES.get(name, ())
        for prefix in (T5,) if kind == "T5EncoderModel" else prefixes:
            names = self._names(prefix)
            if names:
                module = self._converted(folder, kind, prefix, names, dtype)
                self.files[name] = [folder / "config.json"]
                return on_device(module, self.place.device)
        return self._beside(name, kind, dtype)

    def headers(self) -> list[Header]:
        """Of the file, which holds the network."""
        return [self.header]

    def digest(self, names: Sequence[str], *facts: Any) -> str:
        """Over the file, the configurations of parts, and facts."""
        return super().digest(names, self._content, *facts)

    @cached_property
    def _content(self) -> str:
        return folders.content_digest(self.header.path)

    def _names(self, prefix: str) -> list[str]:
        names = [name for name in self.header.shapes if name.startswith(prefix)]
        return names if prefix else [name for name in names if not name.startswith(_OTHERS)]

    def _beside(self, name: str, kind: str, dtype: torch.dtype) -> Any:
        """A part that the file does not hold."""
        try:
            if self.hub is not None:
                folders.fetched(self.hub, self.place.variant, self.place.allow_pickle, parts=(name,))
            return super().module(name, kind, dtype)
        except InvalidInput as error:
            raise InvalidInput(
                f"{self.header.path} holds no {name}, and the configuration has none either ({error}). Give config= "
                "the whole model that the file belongs to, with the weights of this part"
            ) from error

    def _converted(self, folder: Path, kind: str, prefix: str, names: list[str], dtype: torch.dtype) -> Any:
        """The module of a part with the weights that the file has under `prefix`."""
        config, path = checked_config(folder / "config.json"), self.header.path
        advice = "give config= the folder, or the id on the hub, of the model that the file was made from"
        try:
            with torch.device("meta"):
                skeleton = built(kind, config)
            with safe_open(path, framework="pt") as file:
                tensors = {name[len(prefix) :]: file.get_tensor(name) for name in names}
            converted = _diffusers_names(kind, prefix, tensors, skeleton)
        except InvalidInput:
            raise
        except Exception as error:
            raise InvalidInput(
                f"{path}: the tensors under {prefix!r} cannot be read as the {kind} of {folder}: "
                f"{type(error).__name__}: {str(error)[:300]}; {advice}"
            ) from error
        wanted = {name: tensor.shape for name, tensor in skeleton.state_dict().items()}
        found = {name: tensor for name, tensor in converted.items() if name in wanted}
        missing = sorted({name for name, _ in skeleton.named_parameters(remove_duplicate=False)} - set(found))
        if missing:
            raise InvalidInput(
                f"{path} lacks {len(missing)} tensors of the {kind} of {folder}, such as {missing[:3]}: it is of "
                f"another model, or not whole; {advice}"
            )
        for name, tensor in found.items():
            if tensor.shape != wanted[name]:
                raise InvalidInput(
                    f"{path} is of another model than {folder}, whose {name} is {tuple(wanted[name])}, the file's "
                    f"{tuple(tensor.shape)}; {advice}"
                )
        return filled(kind, config, found, dtype)


def _diffusers_names(kind: str, prefix: str, tensors: dict[str, Tensor], skeleton: Any) -> dict[str, Tensor]:
    """The tensors of a part, whose names are without `prefix`, by the names that its class gives them."""
    from diffusers.loaders import single_file_utils as utils

    if kind == "UNet2DConditionModel":
        return utils.convert_ldm_unet_checkpoint({NETWORK + n: t for n, t in tensors.items()}, dict(skeleton.config))
    if kind == "AutoencoderKL":
        return utils.convert_ldm_vae_checkpoint(tensors, dict(skeleton.config))
    if kind == "SD3Transformer2DModel":
        return utils.convert_sd3_transformer_checkpoint_to_diffusers(tensors)
    if kind == "FluxTransformer2DModel":
        return utils.convert_flux_transformer_checkpoint_to_diffusers(tensors)
    if kind == "T5EncoderModel":
        return {"encoder.embed_tokens.weight": tensors["shared.weight"], **tensors}
    if kind not in ("CLIPTextModel", "CLIPTextModelWithProjection"):
        raise InvalidInput(f"no layout of an original {kind} is known: convert the file to a diffusers folder")
    if prefix.endswith(".model."):
        named = {prefix + name: tensor for name, tensor in tensors.items()}
        tensors = utils.convert_open_clip_checkpoint(skeleton, named, prefix=prefix)
    elif prefix.startswith("text_encoders.clip_l.") and kind == "CLIPTextModelWithProjection":
        tensors["text_projection.weight"] = torch.eye(skeleton.config.hidden_size)  # SD3 does not project CLIP-L
    if hasattr(skeleton, "text_model"):
        return tensors
    return {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}


def _folder_of(header: Header, config: str | os.PathLike[str] | None) -> tuple[Path, str | None]:
    """The folder of configurations, and the id on the hub that it is from."""
    if config is not None and not isinstance(config, str | os.PathLike):
        raise InvalidInput(f"config must be a folder or an id on the hub, got {config!r}")
    needed = (
        "a folder with the model_index.json, scheduler, tokenizers and config.json of each part; it needs no weights"
    )
    hub = default_config(header) if config is None else str(config)
    if config is not None and Path(config).is_dir():
        folder, hub = Path(config), None
    elif not folders.is_hub_id(hub):
        raise InvalidInput(
            f"config is {hub!r}, neither a folder nor an id on the hub such as 'org/name': give {needed}"
        )
    else:
        try:
            folder = folders.fetched(hub, parts=())
        except InvalidInput as error:
            raise InvalidInput(
                f"{header.path} holds weights alone, and the configurations of its parts"
                f"{', by default those of' if config is None else ','} {hub!r}, cannot be had: {error}. Give config= "
                f"{needed}"
            ) from error
    if not (folder / "model_index.json").is_file():
        raise InvalidInput(f"config {str(config or hub)!r} has no model_index.json: give {needed}")
    return folder, hub


def default_config(header: Header) -> str:
    """The id on the hub whose configurations diffusers takes for a checkpoint, by its tensors' names and shapes."""
    try:
        from diffusers.loaders.single_file_utils import fetch_diffusers_config
    except ImportError as error:
        raise InvalidInput("original checkpoints need diffusers: pip install 'fewstep[diffusers]'") from error
    try:
        shapes = {name: torch.empty(shape, device="meta") for name, shape in header.shapes.items()}
        return str(fetch_diffusers_config(shapes)["pretrained_model_name_or_path"])
    except (RuntimeError, LookupError) as error:
        raise InvalidInput(
            f"{header.path} is of a kind that diffusers does not know ({error}): give config="
        ) from error
