"""From the parts of a diffusers folder to a model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from fewstep.core.errors import InvalidInput, shown
from fewstep.core.schedule import Schedule
from fewstep.drawing.drawing import MAX_SIDE, Drawing
from fewstep.drawing.lora import LoRA
from fewstep.drawing.overlay import Overlay, merged
from fewstep.models import families
from fewstep.models import folder as folders
from fewstep.models.cache import TensorCache
from fewstep.models.codec import Latents, Pixels
from fewstep.models.conditioner import Labels, Words
from fewstep.models.defaults import WORDS
from fewstep.models.encoder import Reader, TextEncoder
from fewstep.models.families import TEXT_FAMILIES, Family, NetworkFacts, shift_of
from fewstep.models.identity import Identity, in_dtype, with_loras
from fewstep.models.kinds import checked_kind, kind_of
from fewstep.models.lora import LoraFile, merge, refuse
from fewstep.models.model import ImageSizes, Model, TeacherFacts, class_model
from fewstep.models.parts import checked_config, load_part, load_tokenizer, on_device
from fewstep.models.plans import plans_of
from fewstep.models.quiet import quiet
from fewstep.models.statements import SILENT, Claims, Scheduler, settled
from fewstep.zoo import container
from fewstep.zoo.container import Header

NETWORKS = ("unet", "transformer")
"""Parts that are the network."""


@dataclass(frozen=True)
class Place:
    """Where and how the parts of a model are loaded.

    Attributes:
        device, asked: where and in what they run; None is float32, and leaves a callable as it is.
        variant: of the files of weights; `allow_pickle`: whether pickles may be loaded.
        config: with the configurations of an original checkpoint.
        cache: for what encoders make.
        claims: what the caller says of the network.
        lora: what is merged into the weights.
    """

    device: torch.device | str = "cpu"
    asked: torch.dtype | None = None
    variant: str | None = None
    allow_pickle: bool = False
    config: str | os.PathLike[str] | None = None
    cache: TensorCache = field(default_factory=TensorCache)
    claims: Claims = SILENT
    lora: tuple[LoraFile, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """What the parts run in."""
        return self.asked or torch.float32

    @property
    def values(self) -> tuple[LoRA, ...]:
        """The LoRAs, as a drawing keeps them."""
        return tuple(one.value for one in self.lora)


class Parts:
    """The parts of the folder of a model, or of one network of it, loaded one by one.

    Attributes:
        path: of the model; `folder`: with the configurations of its parts; `told`: with what it recommends.
        files: those that were used so far, by part.
        own: whether the scheduler of the folder is of this very model, and not only of its kind.
        remedy: what to do where it contradicts the file of weights.
    """

    own = True
    remedy = "correct it"

    def __init__(self, folder: Path, place: Place):
        self.path, self.folder, self.told, self.place = folder, folder, folder, place
        index = folder / "model_index.json"
        self.index: Mapping[str, Any] = folders.read_json(index) if index.is_file() else {}
        self.files: dict[str, list[Path]] = {}

    def has(self, name: str) -> bool:
        """Whether the index names a part."""
        entry = self.index.get(name)
        return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None

    def module(self, name: str, kind: str, dtype: torch.dtype | None = None) -> Any:
        """The module of a part, on the device."""
        return self.module_in(self.part(name), kind, dtype)

    def module_in(self, folder: Path, kind: str, dtype: torch.dtype | None = None) -> Any:
        """The module in the folder of a part, on the device."""
        place = self.place
        variant, pickles = self.variant(folder), place.allow_pickle
        module, weights = load_part(folder, kind, dtype or place.dtype, variant=variant, allow_pickle=pickles)
        self.files[folder.name] = [folder / "config.json", *weights.files]
        return on_device(module, place.device)

    def variant(self, folder: Path) -> str | None:
        """The variant of the files of a part: none where other parts have it and this one does not, as in diffusers."""
        wanted = self.place.variant
        if wanted is None or folders.has_variant(folder, wanted):
            return wanted
        others = any(folders.has_variant(self.folder / name, wanted) for name in self.index if self.has(name))
        return None if others else wanted

    def part(self, name: str) -> Path:
        """The folder of a part."""
        if not self.has(name):
            raise InvalidInput(f"{self.folder / 'model_index.json'} names no {name}, which the model needs")
        return self.folder / name

    def tokenizer(self, name: str) -> Any:
        """The tokenizer of a part."""
        folder = self.part(name)
        tokenizer = load_tokenizer(folder, str(self.index[name][1]))
        self.files[name] = sorted(file for file in folder.iterdir() if file.is_file())
        return tokenizer

    def vae(self, kind: str = "AutoencoderKL") -> Latents:
        """The VAE; one that does not say that it is fine in float16 stays in float32."""
        forced = checked_config(self.part("vae") / "config.json").get("force_upcast", True)
        half = self.place.dtype is torch.float16
        vae = self.module("vae", kind, torch.float32 if forced and half else self.place.dtype)
        return Latents.of(vae, self.digest(["vae"], str(self.place.dtype)))

    def schedule(self) -> tuple[Schedule, str, Mapping[str, Any]]:
        """The noise schedule, what the network predicts, and the scheduler's configuration."""
        path = self.folder / "scheduler" / "scheduler_config.json"
        config = checked_config(path)
        if config.get("shift_terminal") or config.get("invert_sigmas"):
            raise InvalidInput(f"{path} uses shift_terminal or invert_sigmas, which fewstep does not know")
        scheduler = Scheduler(config, str(path), self.own)
        try:
            return *settled(scheduler, self.headers(), self.place.claims, self.remedy), config
        except (TypeError, ArithmeticError) as error:
            raise InvalidInput(f"{path} describes no noise schedule ({error}): the file is damaged") from error

    def headers(self) -> list[Header]:
        """Of the files with the network's weights, as far as they are safetensors."""
        named = [self.folder / name for name in NETWORKS if self.has(name) and (self.folder / name).is_dir()]
        pickles = self.place.allow_pickle
        weights = [folders.find_weights(folder, self.variant(folder), pickles) for folder in named]
        return [container.inspect(file) for one in weights if not one.pickled for file in one.files]

    def stated(self) -> Mapping[str, Any]:
        """What the model's fewstep.json holds; empty where there is none."""
        path = self.told / "fewstep.json"
        return folders.read_json(path) if os.path.lexists(path) else {}

    def recommended(self) -> dict[str, Any]:
        """The overlay that the folder recommends, in fewstep.json; empty where there is none."""
        overlay, path = dict(self.stated()), self.told / "fewstep.json"
        unknown = sorted(set(overlay) - {"sampling", "guidance", "clip_skip", "decode"})
        parts = ("sampling", "guidance", "decode")
        if unknown or not all(isinstance(overlay.get(name, {}), Mapping) for name in parts):
            raise InvalidInput(f"{path} recommends {shown(overlay)}; it may hold sampling, guidance, clip_skip, decode")
        return overlay

    def teacher(self) -> TeacherFacts | None:
        """The teacher of a student of `fewstep distill`, which its distillation.json names."""
        path = self.told / "distillation.json"
        return TeacherFacts.of(folders.read_json(path)) if os.path.lexists(path) else None

    def digest(self, names: Sequence[str], *facts: Any) -> str:
        """Over the files of parts and facts."""
        return folders.digest_of([file for name in names for file in self.files[name]], *facts)


def component_of(path: Path) -> Path:
    """The folder of the network that a .safetensors file holds the weights of."""
    folder = path.parent
    if (folder / "config.json").is_file() and path.name.partition(".")[0] in folders.BASES:
        return folder
    raise InvalidInput(
        f"{path} holds weights without a configuration beside it, of no layout that is known (those of the original "
        "Stable Diffusion 1, 2, XL and 3 and FLUX are): convert it to a diffusers folder once, and give that"
    )


@quiet()
def of_component(parts: Parts, name: str, schedule: Schedule | None, prediction: str | None) -> Model:
    """One network that needs no text, a UNet2DModel, with the schedule beside it or a given one."""
    folder = parts.folder
    kind = checked_config(folder / "config.json").get("_class_name")
    whole = folder.parent
    if kind != "UNet2DModel":
        where = whole if (whole / "model_index.json").is_file() else "the one with model_index.json"
        raise InvalidInput(
            f"{folder} is one part ({kind}) of a model, which alone cannot draw: give the folder of the whole, {where}"
        )
    if schedule is None and (whole / "scheduler").is_dir():
        schedule, own, _ = Parts(whole, parts.place).schedule()
        prediction = prediction or own
    if schedule is None or prediction is None:
        raise InvalidInput(
            f"{folder} is a network alone: give spec=fewstep.NetworkSpec(schedule, prediction), as in fewstep.Network"
        )
    return _of_unet(parts, folder, name, schedule, prediction)


@quiet()
def of_folder(parts: Parts, name: str) -> Model:
    """A whole model."""
    kind = checked_kind(parts.index)
    if kind in TEXT_FAMILIES:
        return _of_text(parts, TEXT_FAMILIES[kind], name)
    schedule, prediction, _ = parts.schedule()
    if kind == "DiTPipeline":
        return _of_dit(parts, name, schedule, prediction)
    return _of_unet(parts, parts.folder / "unet", name, schedule, prediction)


def recommended_of(parts: Parts) -> dict[str, Any]:
    """What the folder of a model recommends, without loading it.

    Of kinds other than text-to-image that is only what it says itself.
    """
    family = TEXT_FAMILIES.get(kind_of(parts.index) or "")
    if family is None:
        return parts.recommended()
    config = checked_config(parts.folder / family.part / "config.json")
    return merged(WORDS, {"guidance": {"scale": family.facts(config).guidance}}, parts.recommended())


def _of_unet(parts: Parts, folder: Path, name: str, schedule: Schedule, prediction: str) -> Model:
    refuse(parts.place.lora, name)
    module = parts.module_in(folder, "UNet2DModel")
    config = module.config
    if config.sample_size is None:
        raise InvalidInput(f"{folder}/config.json has no sample_size, so the size of its images is not known: add it")
    if config.num_class_embeds is not None or config.class_embed_type is not None:
        raise InvalidInput(
            f"{folder} is conditioned on classes in a way that its files do not say: give it as a callable, "
            "fewstep.load(lambda x, t, label: unet(x, t, label).sample, spec=fewstep.NetworkSpec(.., classes=..))"
        )
    side = config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    return class_model(
        partial(families.call_unet, module),
        Labels(0),
        Pixels(),
        (config.in_channels, height, width),
        parts.recommended(),
        time_scale=1000.0 if schedule.kind == "flow" else 1.0,
        **_facts(parts, name, schedule, prediction),
    )


def _of_dit(parts: Parts, name: str, schedule: Schedule, prediction: str) -> Model:
    refuse(parts.place.lora, name)
    module, codec = parts.module("transformer", "DiTTransformer2DModel"), parts.vae()
    config = module.config
    side = config.sample_size
    return class_model(
        partial(families.call_dit, module),
        Labels(config.num_embeds_ada_norm),
        codec,
        (config.in_channels, side, side),
        parts.recommended(),
        **_facts(parts, name, schedule, prediction),
    )


def _of_text(parts: Parts, family: Family, name: str) -> Model:
    schedule, prediction, scheduler = parts.schedule()
    readers, loras = _readers(parts, family), [str(one) for one in parts.place.values]
    text_parts = sorted(parts.files)
    module, codec = parts.module(family.part, family.kind), parts.vae(family.vae)
    merge(parts.place.lora, family.name, {family.part: module, **{name: one.model for name, one in readers.items()}})
    config, facts = module.config, family.facts(module.config)
    _check_fit(parts.folder, facts, codec)
    _check_told(parts.folder, config, readers)
    encoder = TextEncoder(
        readers,
        family.reads(config),
        parts.digest(text_parts, str(parts.place.dtype), family.name, config.get("joint_attention_dim"), *loras),
        parts.place.cache,
        skips=family.name in ("sd", "sdxl", "sd3"),
        lower=family.lower,
    )
    zero_negative = bool(parts.index.get("force_zeros_for_empty_prompt", family.name == "sdxl"))
    height, width = facts.height * codec.factor, facts.width * codec.factor
    return Model(
        network=partial(family.call, module),
        conditioner=Words(encoder, facts, partial(family.sizes, config, 1), zero_negative),
        codec=codec,
        sizes=ImageSizes(
            channels=facts.channels,
            height=height,
            width=width,
            factor=codec.factor,
            multiple=codec.factor * facts.patch,
            most=MAX_SIDE if facts.most is None else min(MAX_SIDE, facts.most * codec.factor),
        ),
        recommended=_recommended(parts, facts, (height, width), encoder),
        time_scale=family.time_scale,
        sigma_data=float(scheduler.get("sigma_data", 0.5)),
        shift=partial(shift_of, scheduler) if scheduler.get("use_dynamic_shifting") else None,
        patch=facts.patch,
        rows=facts.rows,
        cache=parts.place.cache,
        **_facts(parts, name, schedule, prediction),
    )


def _facts(parts: Parts, name: str, schedule: Schedule, prediction: str) -> dict[str, Any]:
    """What models of every kind take from their parts."""
    weights = parts.digest(sorted(parts.files), str(torch.float32), schedule.spec, prediction)
    return {
        "schedule": schedule,
        "prediction": prediction,
        "identity": Identity(name, weights, {**in_dtype(parts.place.dtype), **with_loras(parts.place.values)}),
        "lora": parts.place.values,
        "device": parts.place.device,
        "dtype": parts.place.dtype,
        "plans": plans_of(parts.path),
        "teacher": parts.teacher(),
    }


def _recommended(parts: Parts, facts: NetworkFacts, size: tuple[int, int], encoder: TextEncoder) -> Overlay:
    """What is usual, and over it what the folder recommends. Raises `InvalidInput` where nothing can be drawn so."""
    usual = merged(WORDS, {"guidance": {"scale": facts.guidance}})
    own = parts.recommended()
    if not own:
        return usual
    try:
        overlay = merged(usual, own)
        Drawing.of({"prompts": ("",), "height": size[0], "width": size[1], **overlay})
        encoder.check(overlay.get("clip_skip"))
    except InvalidInput as error:
        raise InvalidInput(f"{parts.told / 'fewstep.json'} recommends what cannot be drawn: {error}") from error
    return overlay


def _readers(parts: Parts, family: Family) -> dict[str, Reader]:
    """The text encoders with their tokenizers, by part."""
    readers: dict[str, Reader] = {}
    for part, (kind, most) in family.encoders.items():
        if part in family.absent and not parts.has(part):
            continue
        tokenizer = parts.tokenizer(part.replace("text_encoder", "tokenizer"))
        model = parts.module(part, kind)
        length = most or min(tokenizer.model_max_length, model.config.max_position_embeddings)
        readers[part] = Reader(part, tokenizer, model, length)
    return readers


def _check_fit(folder: Path, facts: NetworkFacts, codec: Latents) -> None:
    """Raise `InvalidInput` where the network and the VAE are of different models."""
    if facts.channels != codec.channels:
        raise InvalidInput(
            f"the network of {folder} takes {facts.channels} channels and its VAE makes {codec.channels}: parts that "
            "do not belong together. Give another"
        )
    if facts.extra not in (0, codec.channels + 1):
        raise InvalidInput(
            f"the network of {folder} takes {facts.extra} channels beside the latents; known are none, and "
            f"{codec.channels + 1} for inpainting: a mask and latents. Give another model"
        )


def _check_told(folder: Path, config: families.Config, readers: Mapping[str, Reader]) -> None:
    """Raise `InvalidInput` where a UNet of SDXL is told something else than the six numbers of a picture's size."""
    width, each = config.get("projection_class_embeddings_input_dim"), config.get("addition_time_embed_dim")
    if config.get("addition_embed_type") != "text_time" or not width or not each:
        return
    pooled = int(list(readers.values())[-1].model.config.projection_dim)
    if (told := (width - pooled) / each) != 6:
        raise InvalidInput(
            f"the network of {folder} is told {told:g} numbers beside its text, such as an aesthetic score in the "
            "refiner of SDXL, and fewstep tells it 6, of a picture's size: give the base model"
        )
