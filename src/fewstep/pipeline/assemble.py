"""From the parts of a diffusers folder to a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from fewstep import schedules
from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.core.schedule import Schedule
from fewstep.pipeline import families, source
from fewstep.pipeline.cache import TensorCache
from fewstep.pipeline.decode import Decoder
from fewstep.pipeline.encode import Reader, TextEncoder
from fewstep.pipeline.families import OTHERS, TEXT_FAMILIES, Family, prediction_of
from fewstep.pipeline.parts import checked_config, load_part, load_tokenizer, on_device
from fewstep.pipeline.pipeline import Pipeline
from fewstep.pipeline.text import TextPipeline
from fewstep.pipeline.tuned import plans_of


class Parts:
    """The parts of a folder, loaded one by one.

    Args:
        folder: of the model, or of one network of it.
        device, dtype: where and in what the parts run.
        variant: of the files of weights; `allow_pickle`: whether pickles may be loaded.

    `files` are those that were used so far, by part.
    """

    def __init__(
        self,
        folder: Path,
        device: torch.device | str,
        dtype: torch.dtype,
        variant: str | None = None,
        allow_pickle: bool = False,
    ):
        self.folder, self.device, self.dtype = folder, device, dtype
        self.variant, self.allow_pickle = variant, allow_pickle
        index = folder / "model_index.json"
        self.index: Mapping[str, Any] = source.read_json(index) if index.is_file() else {}
        self.files: dict[str, list[Path]] = {}

    @property
    def plans(self) -> Path:
        """Where tuned plans of the model lie."""
        return plans_of(self.folder)

    def has(self, name: str) -> bool:
        """Whether the index names a part."""
        entry = self.index.get(name)
        return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None

    def module(self, name: str, kind: str, dtype: torch.dtype | None = None) -> Any:
        """The module of a part, on the device."""
        return self.module_in(self._folder(name), kind, dtype)

    def module_in(self, folder: Path, kind: str, dtype: torch.dtype | None = None) -> Any:
        """The module in the folder of a part, on the device."""
        dtype = dtype or self.dtype
        module, weights = load_part(folder, kind, dtype, variant=self.variant, allow_pickle=self.allow_pickle)
        self.files[folder.name] = [folder / "config.json", *weights.files]
        return on_device(module, self.device)

    def tokenizer(self, name: str) -> Any:
        """The tokenizer of a part."""
        folder = self._folder(name)
        tokenizer = load_tokenizer(folder, str(self.index[name][1]))
        self.files[name] = sorted(file for file in folder.iterdir() if file.is_file())
        return tokenizer

    def vae(self, kind: str = "AutoencoderKL") -> Decoder:
        """The VAE; one that does not say that it is fine in float16 stays in float32."""
        forced = checked_config(self._folder("vae") / "config.json").get("force_upcast", True)
        half = self.dtype is torch.float16
        vae = self.module("vae", kind, torch.float32 if forced and half else self.dtype)
        return Decoder.of(vae, self.digest(["vae"]))

    def schedule(self) -> tuple[Schedule, str, Mapping[str, Any]]:
        """The noise schedule, what the network predicts, and the scheduler's configuration."""
        path = self.folder / "scheduler" / "scheduler_config.json"
        config = checked_config(path)
        if config.get("shift_terminal") or config.get("invert_sigmas"):
            raise InvalidInput(f"{path} uses shift_terminal or invert_sigmas, which fewstep does not know")
        try:
            schedule = schedules.from_diffusers(config)
        except (TypeError, ArithmeticError) as error:
            raise InvalidInput(f"{path} describes no noise schedule ({error}): the file is damaged") from error
        return schedule, prediction_of(config, schedule.kind), config

    def guidance(self) -> float | None:
        """The guidance scale that the folder recommends, in fewstep.json: None where it does not."""
        path = self.folder / "fewstep.json"
        if not path.is_file():
            return None
        scale = source.read_json(path).get("guidance")
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= 100:
            raise InvalidInput(f"{path}: guidance has to be a number from 0 to 100, got {scale!r:.100}")
        return float(scale)

    def digest(self, names: Sequence[str], *facts: Any) -> str:
        """Over the files of parts, the dtype and facts."""
        return self._digest(self.dtype, names, *facts)

    def in_float32(self, names: Sequence[str], *facts: Any) -> Callable[[], str] | None:
        """Finds what `digest` is in float32; None where it is that already."""
        if self.dtype is torch.float32:
            return None
        return cache(partial(self._digest, torch.float32, names, *facts))

    def _digest(self, dtype: torch.dtype, names: Sequence[str], *facts: Any) -> str:
        return source.digest_of([file for name in names for file in self.files[name]], str(dtype), *facts)

    def _folder(self, name: str) -> Path:
        if not self.has(name):
            raise InvalidInput(f"{self.folder / 'model_index.json'} names no {name}, which the model needs")
        return self.folder / name


def component_of(path: Path) -> Path:
    """The folder of the network that a .safetensors file holds the weights of."""
    folder = path.parent
    if (folder / "config.json").is_file() and path.name.partition(".")[0] in source.BASES:
        return folder
    raise InvalidInput(
        f"{path} holds weights without a configuration beside it, of no layout that is known (those of the original "
        "Stable Diffusion 1, 2, XL and 3 and FLUX are): convert it to a diffusers folder once, and give that"
    )


def of_component(parts: Parts, name: str, schedule: Schedule | None, prediction: str | None) -> Pipeline:
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
        schedule, own, _ = Parts(whole, parts.device, parts.dtype).schedule()
        prediction = prediction or own
    if schedule is None or prediction is None:
        raise InvalidInput(f"{folder} is a network alone: give schedule and prediction too, as in fewstep.Network")
    return _of_unet(parts, folder, name, schedule, prediction)


def of_folder(parts: Parts, name: str, cache: TensorCache | None) -> Pipeline | TextPipeline:
    """A whole model."""
    kind = str(parts.index.get("_class_name"))
    if kind not in TEXT_FAMILIES and kind not in OTHERS:
        raise unknown_name("kind of model", kind, [*TEXT_FAMILIES, *OTHERS])
    schedule, prediction, scheduler = parts.schedule()
    if kind in TEXT_FAMILIES:
        return _of_text(parts, TEXT_FAMILIES[kind], name, schedule, prediction, scheduler, cache)
    if kind == "DiTPipeline":
        return _of_dit(parts, name, schedule, prediction)
    return _of_unet(parts, parts.folder / "unet", name, schedule, prediction)


def _of_unet(parts: Parts, folder: Path, name: str, schedule: Schedule, prediction: str) -> Pipeline:
    module = parts.module_in(folder, "UNet2DModel")
    config = module.config
    if config.sample_size is None:
        raise InvalidInput(f"{folder}/config.json has no sample_size, so the size of its images is not known: add it")
    if config.num_class_embeds is not None or config.class_embed_type is not None:
        raise InvalidInput(
            f"{folder} is conditioned on classes in a way that its files do not say: give it as a callable, "
            "fewstep.load(lambda x, t, label: unet(x, t, label).sample, classes=.., schedule=.., ..)"
        )
    side = config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    return Pipeline(
        network=partial(families.call_unet, module),
        name=name,
        digest=parts.digest([folder.name], schedule.spec, prediction),
        in_float32=parts.in_float32([folder.name], schedule.spec, prediction),
        plans=parts.plans,
        schedule=schedule,
        prediction=prediction,
        sample_shape=(config.in_channels, height, width),
        classes=0,
        device=parts.device,
        dtype=parts.dtype,
        time_scale=1000.0 if schedule.kind == "flow" else 1.0,
    )


def _of_dit(parts: Parts, name: str, schedule: Schedule, prediction: str) -> Pipeline:
    module, decoder = parts.module("transformer", "DiTTransformer2DModel"), parts.vae()
    config = module.config
    return Pipeline(
        network=partial(families.call_dit, module),
        name=name,
        digest=parts.digest(sorted(parts.files), schedule.spec, prediction),
        in_float32=parts.in_float32(sorted(parts.files), schedule.spec, prediction),
        plans=parts.plans,
        schedule=schedule,
        prediction=prediction,
        sample_shape=(config.in_channels, config.sample_size, config.sample_size),
        classes=config.num_embeds_ada_norm,
        device=parts.device,
        dtype=parts.dtype,
        decoder=decoder,
    )


def _of_text(
    parts: Parts,
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
    module, decoder = parts.module(family.part, family.kind), parts.vae(family.vae)
    if family.channels(module.config) != decoder.channels:
        raise InvalidInput(
            f"the network of {parts.folder} takes {family.channels(module.config)} channels and its VAE makes "
            f"{decoder.channels}: parts that do not belong together. Give another"
        )
    if family.extra(module.config) not in (0, decoder.channels + 1):
        raise InvalidInput(
            f"the network of {parts.folder} takes {family.extra(module.config)} channels beside the latents; known are "
            f"none, and {decoder.channels + 1} for inpainting: a mask and latents. Give another model"
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
        recommended=parts.guidance(),
        family=family,
        config=module.config,
        name=name,
        digest=parts.digest(sorted(parts.files), schedule.spec, prediction),
        in_float32=parts.in_float32(sorted(parts.files), schedule.spec, prediction),
        plans=parts.plans,
        schedule=schedule,
        prediction=prediction,
        encoder=encoder,
        decoder=decoder,
        scheduler=scheduler,
        zero_negative=bool(parts.index.get("force_zeros_for_empty_prompt", family.name == "sdxl")),
        dtype=parts.dtype,
        device=parts.device,
    )
