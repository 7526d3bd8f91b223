"""A student as an ordinary model: the teacher's files with the trained network, its plan and no guidance.

The plan lies in what the model recommends, so nobody draws with other times by mistake.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fewstep import zoo
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.models.adapted import is_adapted
from fewstep.models.folder import read_json
from fewstep.models.quiet import quiet
from fewstep.zoo.network import UNet

NETWORKS = ("unet", "transformer")
WRITTEN = ("fewstep.json", "distillation.json")
WEIGHTS = (".safetensors", ".ckpt", ".bin", ".pt")
"""Of files beside the parts: the same model in another format."""


def recommendation(plan: Plan, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The overlay that a student recommends: its plan, and guidance 1 unless it is told the scale."""
    told = facts.get("student", {})
    scale = told["guidance"] if told.get("scales") else 1.0
    return {"sampling": {"plan": json.loads(plan.to_json())}, "guidance": {"scale": scale}}


def source_of(model: str | os.PathLike[str]) -> Path:
    """The files of a teacher: a .safetensors file of `fewstep train`, or a whole model in the format of diffusers.

    Raises `InvalidInput` for anything else, of which no student could be written.
    """
    path = zoo.shipped_path(str(model)) if model in zoo.SHIPPED else Path(model)
    if (path.is_file() and path.suffix == ".safetensors") or (path / "model_index.json").is_file():
        return path
    if is_adapted(path):
        raise InvalidInput(f"{model} holds only what differs from another model: distil that one")
    raise InvalidInput(
        f"{model} is neither a shipped model, a .safetensors file that `fewstep train` wrote, nor a folder with "
        "model_index.json: a student is written beside the other parts of such a model, so give one"
    )


def target_of(folder: Path, source: Path) -> Path:
    """Where the student of a source lies in the folder of its training."""
    return folder / ("student.safetensors" if source.is_file() else "student")


def write(target: Path, source: Path, network: nn.Module, plan: Plan, facts: Mapping[str, Any]) -> None:
    """Write a student: whole or not at all. `facts` say how it was trained."""
    if source.is_file():
        _write_file(target, source, network, plan, facts)
    else:
        _write_folder(target, source, network, plan, facts)


def _write_file(target: Path, source: Path, network: nn.Module, plan: Plan, facts: Mapping[str, Any]) -> None:
    if not isinstance(network, UNet):
        raise InvalidInput(f"{source} holds a network of fewstep's, and the student is a {type(network).__name__}")
    of = zoo.load(source).spec
    training = {**facts, "recommended": recommendation(plan, facts)}
    zoo.save(target, network, zoo.Spec(network.config, of.prediction, of.schedule, of.value_range, training))


def _write_folder(target: Path, source: Path, network: nn.Module, plan: Plan, facts: Mapping[str, Any]) -> None:
    part = next(name for name in NETWORKS if (source / name).is_dir())
    for left in target.parent.glob(f".{target.name}.*"):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as around:
        made = Path(around) / target.name
        shutil.copytree(source, made, ignore=lambda folder, names: _left_out(Path(folder), source, part, names))
        with quiet():
            network.save_pretrained(made / part, safe_serialization=True)  # type: ignore[operator]  # of diffusers
        (made / "fewstep.json").write_text(json.dumps(kept(source) | recommendation(plan, facts)) + "\n")
        (made / "distillation.json").write_text(json.dumps(dict(facts), indent=1) + "\n")
        if target.exists():
            shutil.rmtree(target)
        os.replace(made, target)


def kept(source: Path) -> dict[str, Any]:
    """What a teacher recommends of other things than sampling and guidance, which its student then does too."""
    path = source / "fewstep.json"
    found = read_json(path) if path.is_file() else {}
    return {name: value for name, value in found.items() if name in ("clip_skip", "decode")}


def _left_out(folder: Path, source: Path, part: str, names: list[str]) -> set[str]:
    """Of the teacher: its own network and recommendation, and what is no part of the model, such as runs beside it."""
    if folder != source:
        return set()
    parts = set(read_json(source / "model_index.json")) - {part}
    others = {name for name in names if (source / name).is_dir()} - parts
    return others | {name for name in names if name in WRITTEN or Path(name).suffix in WEIGHTS}
