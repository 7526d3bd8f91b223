"""Where a training stands, on the disk: each state is a folder that appears whole or not at all.

    states/step-00000200/state.safetensors    weights, averages and moments of the optimiser, by role
    states/step-00000200/manifest.json        what run it belongs to, its step, and the digest of the tensors
    states/latest                             the name of the folder to go on from, written last

The state before the last one is kept too. A disk that is full while a state is written leaves the earlier ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.files import read_bounded, write_whole
from fewstep.training.average import Averages
from fewstep.training.method import Role

TENSORS, MANIFEST, LATEST = "state.safetensors", "manifest.json", "latest"
KEPT = 2
MOST_BYTES = 1 << 36


class Learner(NamedTuple):
    """A role that is trained: its weights by name, their averages and the optimiser."""

    weights: dict[str, nn.Parameter]
    averages: Averages
    optimiser: Any


class Saved(NamedTuple):
    """What a state holds: the step that is done, its stage, the seconds so far, and the tensors by name."""

    step: int
    stage: int
    seconds: float
    tensors: dict[str, Tensor]


def write(folder: Path, identity: Mapping[str, Any], saved: Saved) -> None:
    """Add a state to a folder, and remove those that are older than the one before it."""
    name = f"step-{saved.step:08d}"
    part = folder / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        content = save({key: tensor.detach().cpu().contiguous() for key, tensor in saved.tensors.items()})
        write_whole(part / TENSORS, content)
        facts = {"step": saved.step, "stage": saved.stage, "seconds": saved.seconds, "run": dict(identity)}
        digest = hashlib.sha256(content).hexdigest()
        write_whole(part / MANIFEST, json.dumps({**facts, "sha256": digest}, indent=1).encode())
        shutil.rmtree(folder / name, ignore_errors=True)
        os.replace(part, folder / name)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    write_whole(folder / LATEST, name.encode())
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def read(folder: Path, identity: Mapping[str, Any]) -> Saved | None:
    """The latest state in a folder, or None where there is none.

    Raises `InvalidInput` where it is damaged or of a run with other settings, which it names.
    """
    if not (folder / LATEST).is_file():
        return None
    name = read_bounded(folder / LATEST, 100).decode("ascii", "replace").strip()
    place = folder / name
    if not name.startswith("step-") or Path(name).name != name or not (place / MANIFEST).is_file():
        raise InvalidInput(f"{folder / LATEST} names {name!r}, which is not a state: write the name of one into it")
    manifest = json.loads(read_bounded(place / MANIFEST, 1 << 20))
    check_same(place, manifest["run"], json.loads(json.dumps(dict(identity))))
    content = read_bounded(place / TENSORS, MOST_BYTES)
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise InvalidInput(
            f"{place / TENSORS} is damaged: write the name of an earlier state beside it into {folder / LATEST}"
        )
    return Saved(manifest["step"], manifest["stage"], manifest["seconds"], load(content))


def check_same(place: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `InvalidInput`, naming what differs, where a state belongs to another run."""
    differing = [
        f"{name} {found.get(name)!r:.60} there, {wanted.get(name)!r:.60} here"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differing:
        raise InvalidInput(
            f"{place} belongs to a run with other settings ({'; '.join(differing)}): give those, or another folder"
        )


def tensors_of(roles: Mapping[str, Role], learners: Mapping[str, Learner], stage: int) -> dict[str, Tensor]:
    """All that steps have changed: weights, averages and moments of what is trained, and later stages' teachers."""
    found: dict[str, Tensor] = {}
    for name, role in roles.items():
        if role.trained or stage:
            found |= {f"{name}.weight.{key}": tensor for key, tensor in role.module.named_parameters()}
            found |= {f"{name}.buffer.{key}": tensor for key, tensor in role.module.named_buffers()}
    for name, learner in learners.items():
        for width, average in learner.averages.by_width.items():
            found |= {f"{name}.average.{width}.{key}": tensor for key, tensor in average.items()}
        for index, moments in learner.optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                found[f"{name}.optimiser.{index}.{key}"] = torch.as_tensor(value)
    return found


@torch.no_grad()
def restore(saved: Saved, roles: Mapping[str, Role], learners: Mapping[str, Learner]) -> None:
    """Put a state's tensors into place."""
    tensors = saved.tensors
    for name, role in roles.items():
        if role.trained or saved.stage:
            for kind, own in (("weight", role.module.named_parameters()), ("buffer", role.module.named_buffers())):
                for key, tensor in own:
                    tensor.copy_(tensors[f"{name}.{kind}.{key}"])
    for name, learner in learners.items():
        for width, average in learner.averages.by_width.items():
            for key, tensor in average.items():
                tensor.copy_(tensors[f"{name}.average.{width}.{key}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"{name}.optimiser."):
                index, what = key.removeprefix(f"{name}.optimiser.").split(".", 1)
                moments.setdefault(int(index), {})[what] = value
        learner.optimiser.load_state_dict({**learner.optimiser.state_dict(), "state": moments})
