"""Which kind of model a folder holds: by the name of its pipeline, or by its parts under the name of another one.

diffusers has several pipelines for one set of parts: StableDiffusionImg2ImgPipeline loads what StableDiffusionPipeline
saves. A folder is known by the parts that its model_index.json names, as long as it names no others that would act.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from fewstep.core.errors import InvalidInput, shown, unknown_name
from fewstep.models.families import OTHERS, TEXT_FAMILIES, Family

Index = Mapping[str, Any]
OTHER_NETWORKS = {"DiTPipeline": ("transformer", "DiTTransformer2DModel"), "DDPMPipeline": ("unet", "UNet2DModel")}
"""The network of the kinds that take no text."""
IDLE = ("scheduler", "safety_checker", "feature_extractor", "image_encoder")
"""Parts that do nothing where a drawing is from words alone."""


def kind_of(index: Index) -> str | None:
    """The pipeline of diffusers whose parts an index names, one of those that are known, or None.

    Its name decides where that is known; else its parts do.
    """
    name = index.get("_class_name")
    if isinstance(name, str) and name in (*TEXT_FAMILIES, *OTHERS):
        return name
    if not isinstance(name, str):
        return None
    parts = {part: entry[1] for part, entry in index.items() if _is_part(entry)}
    fitting = [kind for kind, family in TEXT_FAMILIES.items() if _fits(parts, family)]
    fitting += [kind for kind, (part, cls) in OTHER_NETWORKS.items() if _is_of(parts, part, cls)]
    # PixArt-alpha and -sigma have the same parts and read texts of other lengths: the name tells
    nearer = [kind for kind in fitting if name.startswith(kind.removesuffix("Pipeline"))] or fitting
    families = {id(TEXT_FAMILIES.get(kind, kind)) for kind in nearer}
    return nearer[0] if len(families) == 1 else None


def checked_kind(index: Index) -> str:
    """As `kind_of`. Raises `InvalidInput` for a pipeline that diffusers does not know, and one of other parts."""
    name, kind = str(index.get("_class_name")), kind_of(index)
    known = [*TEXT_FAMILIES, *OTHERS]
    if kind is not None and kind == name:
        return kind
    if not _is_of_diffusers(name):
        raise unknown_name("kind of model", name, known)
    if kind is None:
        parts = ", ".join(f"{part} ({entry[1]})" for part, entry in index.items() if _is_part(entry))
        raise InvalidInput(
            f"{name} is not a pipeline that fewstep knows, and its parts are not those of one: {shown(parts)[1:-1]}. "
            f"Known are {', '.join(known)}"
        )
    return kind


def _is_part(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)


def _fits(parts: Mapping[str, str], family: Family) -> bool:
    """Whether parts are those of a family, and nothing beside them acts."""
    needed = {family.part: family.kind, "vae": family.vae}
    needed |= {part: cls for part, (cls, _) in family.encoders.items() if part in parts or part not in family.absent}
    tokenizers = {part.replace("text_encoder", "tokenizer") for part in family.encoders}
    rest = set(parts) - set(needed) - tokenizers - set(IDLE)
    return not rest and all(parts.get(part) == cls for part, cls in needed.items())


def _is_of(parts: Mapping[str, str], part: str, cls: str) -> bool:
    allowed = {part, *IDLE, *(("vae",) if part == "transformer" else ())}
    return parts.get(part) == cls and set(parts) <= allowed


def _is_of_diffusers(name: str) -> bool:
    try:
        diffusers = importlib.import_module("diffusers")
    except ImportError:
        return False
    return name.endswith("Pipeline") and name in dir(diffusers)
