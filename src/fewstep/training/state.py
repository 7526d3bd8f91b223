"""Where a training stands, on the disk: each state is a folder that appears whole or not at all.

    states/step-00000200/state.safetensors    weights, averages and moments of the optimiser, by role
    states/step-00000200/manifest.json        what run it belongs to, its step, and the digest of the tensors
    states/latest                             the name of the folder to go on from, written last

The state before the last one is kept too. A disk that is full while a state is written leaves the earlier ones.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fewstep.core.errors import InvalidInput
from fewstep.files import read_bounded, write_whole
from fewstep.training.average import Averages
from fewstep.training.roles import Role

TENSORS, MANIFEST, LATEST = "state.safetensors", "manifest.json", "latest"
MOST_FACTS = 64 << 20
"""Most bytes of a manifest."""


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
    for left in folder.glob(".step-*.part"):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write_tensors(part / TENSORS, saved.tensors)
        facts = {"step": saved.step, "stage": saved.stage, "seconds": saved.seconds, "run": dict(identity)}
        digest = digest_of(part / TENSORS)
        write_whole(part / MANIFEST, json.dumps({**facts, "sha256": digest}, indent=1).encode())
        shutil.rmtree(folder / name, ignore_errors=True)
        os.replace(part, folder / name)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    write_whole(folder / LATEST, name.encode())
    before = sorted(one.name for one in folder.glob("step-*") if one.name < name)
    for old in folder.glob("step-*"):
        if old.name not in (name, *before[-1:]):
            shutil.rmtree(old, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A file of tensors, on the disk when this returns."""
    try:
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
    except SafetensorError as error:  # which is how the library passes on what the system refuses
        raise OSError(errno.EIO, f"it cannot be written ({error})", str(path)) from error
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def digest_of(path: Path) -> str:
    """SHA-256 of a file, of which a piece at a time is in memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
    try:
        manifest = json.loads(read_bounded(place / MANIFEST, MOST_FACTS))
        run, digest = manifest["run"], manifest["sha256"]
        step, stage, seconds = int(manifest["step"]), int(manifest["stage"]), float(manifest["seconds"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(place / MANIFEST, folder) from error
    check_same(place, run, json.loads(json.dumps(dict(identity))))
    if not (place / TENSORS).is_file() or digest_of(place / TENSORS) != digest:
        raise _damaged(place / TENSORS, folder)
    return Saved(step, stage, seconds, load_file(place / TENSORS))


def _damaged(path: Path, folder: Path) -> InvalidInput:
    return InvalidInput(
        f"{path} is damaged: write the name of an earlier state beside it into {folder / LATEST}, or remove {folder} "
        "to begin anew"
    )


def check_same(place: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise `InvalidInput`, naming what differs, where a state belongs to another run."""
    theirs, ours = flat(found), flat(wanted)
    differing = [
        f"{name} is {theirs.get(name)!r:.60} there and {ours.get(name)!r:.60} here"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
    if differing:
        raise InvalidInput(
            f"{place} belongs to a run with other settings ({'; '.join(differing)}): give those, or another folder, or "
            f"remove {place.parent} to begin anew from the same data"
        )


def flat(facts: Any, name: str = "") -> dict[str, Any]:
    """The values of nested mappings, by the path to each."""
    if not isinstance(facts, Mapping):
        return {name: facts}
    return {
        path: value for key, inner in facts.items() for path, value in flat(inner, f"{name}.{key}".strip(".")).items()
    }


def tensors_of(roles: Mapping[str, Role], learners: Mapping[str, Learner], stage: int) -> dict[str, Tensor]:
    """All that steps have changed: weights, averages and moments of what is trained, and later stages' teachers."""
    found: dict[str, Tensor] = {}
    for name, role in roles.items():
        if role.moves or stage:
            found |= {f"{name}.weight.{key}": tensor for key, tensor in role.weights.items()}
            found |= {f"{name}.buffer.{key}": tensor for key, tensor in role.module.named_buffers()}
    for name, learner in learners.items():
        found[f"{name}.updates"] = torch.tensor(learner.averages.updates)
        for width, average in learner.averages.by_width.items():
            found |= {f"{name}.average.{width}.{key}": tensor for key, tensor in average.items()}
        for index, moments in learner.optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                found[f"{name}.optimiser.{index}.{key}"] = torch.as_tensor(value)
    return found


@torch.no_grad()
def restore(saved: Saved, roles: Mapping[str, Role], learners: Mapping[str, Learner]) -> None:
    """Put a state's tensors into place. Raises `InvalidInput` where one is missing."""
    tensors = saved.tensors
    for name in learners:
        if f"{name}.updates" not in tensors:
            raise InvalidInput(
                f"the state does not count the steps of the {name}, as those of earlier versions: remove the folder of "
                "states to begin anew from the same data"
            )
    for name, role in roles.items():
        if role.moves or saved.stage:
            for kind, own in (("weight", role.weights.items()), ("buffer", role.module.named_buffers())):
                for key, tensor in own:
                    tensor.copy_(tensors[f"{name}.{kind}.{key}"])
    for name, learner in learners.items():
        learner.averages.updates = int(tensors[f"{name}.updates"])
        for width, average in learner.averages.by_width.items():
            for key, tensor in average.items():
                tensor.copy_(tensors[f"{name}.average.{width}.{key}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"{name}.optimiser."):
                index, what = key.removeprefix(f"{name}.optimiser.").split(".", 1)
                moments.setdefault(int(index), {})[what] = value
        learner.optimiser.load_state_dict({**learner.optimiser.state_dict(), "state": moments})
