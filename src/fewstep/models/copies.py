"""A model written anew with other weights of its network: all else is copied from the files of the one it came from.

Where low ranks are all that differs, these are written beside it too:

    lora/pytorch_lora_weights.safetensors     for `load_lora_weights` of diffusers
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from fewstep import zoo
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.models import lowrank
from fewstep.models.adapted import is_adapted
from fewstep.models.folder import read_json
from fewstep.models.plans import plans_of
from fewstep.models.quiet import quiet
from fewstep.zoo.network import UNet

NETWORKS = ("unet", "transformer")
LORA = "lora"
RECOMMENDED = "fewstep.json"
FACTS = ("distillation.json", "training.json")
"""Files that say how a model in a folder was trained; a copy has one of its own."""
WEIGHTS = (".safetensors", ".ckpt", ".bin", ".pt")
"""Of files beside the parts: the same model in another format."""


def source_of(model: str | os.PathLike[str], what: str = "a copy") -> Path:
    """The files of a model: a .safetensors file of `fewstep train`, or a whole model in the format of diffusers.

    Raises `InvalidInput` for anything else, beside which `what` could not be written.
    """
    path = zoo.shipped_path(str(model)) if model in zoo.SHIPPED else Path(model)
    if (path.is_file() and path.suffix == ".safetensors") or (path / "model_index.json").is_file():
        return path
    if is_adapted(path):
        raise InvalidInput(f"{model} holds only what differs from another model: give that one")
    raise InvalidInput(
        f"{model} is neither a shipped model, a .safetensors file that `fewstep train` wrote, nor a folder with "
        f"model_index.json: {what} is written beside the other parts of such a model, so give one"
    )


def target_of(folder: Path, source: Path, name: str) -> Path:
    """Where the copy of a source lies in a folder."""
    return folder / (f"{name}.safetensors" if source.is_file() else name)


def part_of(source: Path) -> str:
    """The part of a folder that is the network."""
    return next(name for name in NETWORKS if (source / name).is_dir())


def lora_of(folder: Path) -> Path:
    """Where the changes lie beside a copy in a folder."""
    return folder / LORA / lowrank.LORA_FILE


def write_lora(folder: Path, source: Path, changes: lowrank.Changes) -> Path | None:
    """Write changes beside a copy in a folder; None where the source is a file, unknown to diffusers."""
    if source.is_file():
        return None
    path = lora_of(folder)
    path.parent.mkdir(exist_ok=True)
    lowrank.write(path.parent, part_of(source), changes)
    return path


def write(
    target: Path,
    source: Path,
    network: nn.Module,
    recommended: Mapping[str, Any],
    facts: Mapping[str, Any],
    facts_in: str = FACTS[0],
    plans: Sequence[Plan] = (),
) -> None:
    """Write a copy: whole or not at all. `facts` say how it was trained, in a folder in the file `facts_in`.

    `plans` are those that lie with it, beside the one that it recommends.
    """
    if source.is_file():
        write_plans(plans_of(target), plans)
        _write_file(target, source, network, recommended, facts)
    else:
        _write_folder(target, source, network, recommended, {facts_in: facts}, plans)


def write_plans(folder: Path, plans: Sequence[Plan]) -> None:
    """Write plans into a folder, by their rows, in the place of those there."""
    shutil.rmtree(folder, ignore_errors=True)
    if plans:
        folder.mkdir(parents=True)
    for plan in plans:
        plan.save(folder / f"{len(plan.rows)}.json")


def _write_file(
    target: Path, source: Path, network: nn.Module, recommended: Mapping[str, Any], facts: Mapping[str, Any]
) -> None:
    if not isinstance(network, UNet):
        raise InvalidInput(f"{source} holds a network of fewstep's, and the copy is a {type(network).__name__}")
    spec = zoo.load(source).spec
    training = {**facts, **({"recommended": dict(recommended)} if recommended else {})}
    zoo.save(target, network, replace(spec, config=network.config, training=training))


def _write_folder(
    target: Path,
    source: Path,
    network: nn.Module,
    recommended: Mapping[str, Any],
    facts: Mapping[str, Mapping[str, Any]],
    plans: Sequence[Plan],
) -> None:
    part = part_of(source)
    for left in target.parent.glob(f".{target.name}.*"):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as around:
        made = Path(around) / target.name
        shutil.copytree(source, made, ignore=lambda folder, names: _left_out(Path(folder), source, part, names))
        with quiet():
            network.save_pretrained(made / part, safe_serialization=True)  # type: ignore[operator]  # of diffusers
        if recommended:
            (made / RECOMMENDED).write_text(json.dumps(dict(recommended)) + "\n")
        for name, values in facts.items():
            (made / name).write_text(json.dumps(dict(values), indent=1) + "\n")
        write_plans(made / "plans", plans)
        if target.exists():
            shutil.rmtree(target)
        os.replace(made, target)


def recommended_by(source: Path) -> dict[str, Any]:
    """What the files of a model recommend themselves."""
    if source.is_file():
        return dict(zoo.load(source).spec.training.get("recommended", {}))
    path = source / RECOMMENDED
    return read_json(path) if path.is_file() else {}


def facts_of(folder: Path) -> dict[str, Any]:
    """How a student in a folder was trained; empty where its files do not say so."""
    path = folder / FACTS[0]
    return read_json(path) if path.is_file() else {}


def _left_out(folder: Path, source: Path, part: str, names: list[str]) -> set[str]:
    """Of the source: its own network and recommendation, and what is no part of the model, such as runs beside it."""
    if folder != source:
        return set()
    parts = set(read_json(source / "model_index.json")) - {part}
    others = {name for name in names if (source / name).is_dir()} - parts
    own = (RECOMMENDED, *FACTS)
    return others | {name for name in names if name in own or Path(name).suffix in WEIGHTS}
