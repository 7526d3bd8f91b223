"""A model with a variant in a folder: an ordinary model, and beside it what was made of it.

    optimization.json                    {"format": 1, "model": .., "variant": .., "batches": .., "machine": ..}
    model_index.json, unet/ ..           the model, its network and VAE in the dtypes of the variant
    model.safetensors                    or this, of a model of `fewstep train`

Whoever loads the model as it is gets its weights in these dtypes, diffusers too; `load` makes the rest of the variant.
Compiled code lies in no folder, see `Store`.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fewstep import zoo
from fewstep.core.errors import InvalidInput, shown
from fewstep.models import Model, NetworkSpec, load_model
from fewstep.models import folder as folders
from fewstep.models.adapted import BASE, Adapted, is_adapted
from fewstep.models.assembly import Place
from fewstep.models.copies import part_of, source_of
from fewstep.models.plans import plans_of
from fewstep.models.quiet import quiet
from fewstep.run.machine import Machine, is_here, machine_of
from fewstep.variants.network import module_of
from fewstep.variants.store import Store
from fewstep.variants.variant import Variant

FACTS, FORMAT, FILE = "optimization.json", 1, "model.safetensors"
KEPT = ("fewstep.json", "distillation.json", "training.json")


class MeasuredElsewhere(UserWarning):
    """A variant was measured on another machine, where other things may be fast."""


@dataclass(frozen=True)
class Facts:
    """What a folder says of its variant.

    Attributes:
        name, weights: of the model that it is made of.
        files: the digest of the folder's own weights.
        batches: images at once that it was made for.
        machine: that it was measured on.
        recommended: what a model of one file recommends, whose file does not say it.
    """

    name: str
    weights: str
    files: str
    variant: Variant
    batches: tuple[int, ...]
    machine: Machine
    recommended: Mapping[str, Any] | None = None

    @staticmethod
    def read(path: Path) -> Facts:
        """From the file of a folder. Raises `InvalidInput` for one that is damaged, or of another format."""
        found = folders.read_json(path)
        if found.get("format") != FORMAT:
            raise InvalidInput(f"{path} has format {shown(found.get('format'))}, this is {FORMAT}: optimise again")
        try:
            model, batches, recommended = found["model"], tuple(found["batches"]), found["recommended"]
            machine = Machine(**found["machine"])
            texts = (model["name"], model["weights"], model["files"], *machine._replace(threads=""))
            sound = batches and all(type(batch) is int and 1 <= batch <= 1024 for batch in batches)
            sound = sound and type(machine.threads) is int and (recommended is None or isinstance(recommended, Mapping))
            if not sound or not all(isinstance(text, str) for text in texts):
                raise TypeError("a name, a digest or a number of images is none")
            variant = Variant.from_json(found["variant"])
        except (KeyError, TypeError) as error:
            raise InvalidInput(f"{path} does not say what was made of the model ({error}): optimise again") from error
        return Facts(model["name"], model["weights"], model["files"], variant, batches, machine, recommended)

    def write(self, path: Path) -> None:
        """The inverse of `read`."""
        document = {
            "format": FORMAT,
            "model": {"name": self.name, "weights": self.weights, "files": self.files},
            "variant": self.variant.to_json(),
            "batches": list(self.batches),
            "machine": self.machine._asdict(),
            "recommended": self.recommended,
        }
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def is_variant(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a folder of a model with a variant."""
    return (Path(path) / FACTS).is_file()


def write(
    target: Path,
    source: Path,
    model: Model,
    variant: Variant,
    batches: Sequence[int],
    extra: Mapping[str, bytes] | None = None,
) -> None:
    """Write a model with a variant into a folder, whole or not at all; one that is there is replaced.

    Args:
        source: the files of the model, see `files_of`; `model`: as it is loaded from there, nothing made of it.
        extra: further files, by name.
    """
    made_of = replace(variant, compiled=False, codec_compiled=False).of(model)
    target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*"):  # by a kill
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as around:
        made = Path(around) / target.name
        if source.is_file():
            made.mkdir()
            shutil.copy2(source, made / FILE)
            if plans_of(source).is_dir():
                shutil.copytree(plans_of(source), plans_of(made / FILE))
        else:
            _write_parts(made, source, made_of, variant)
        files = load_model(_inside(made), Place()).weights  # which shows too that they can be read
        recommended = dict(model.recommended) if source.is_file() else None
        machine = machine_of(model.device)
        Facts(model.name, model.weights, files, variant, tuple(batches), machine, recommended).write(made / FACTS)
        for name, content in (extra or {}).items():
            (made / name).write_bytes(content)
        if target.exists():
            if not is_variant(target):
                raise InvalidInput(f"{target} is there and holds no optimised model: name another folder")
            shutil.rmtree(target)
        os.replace(made, target)


def files_of(source: str | os.PathLike[str]) -> Path:
    """The files of a model that a folder can be made of. Raises `InvalidInput` for anything else."""
    path = zoo.shipped_path(str(source)) if source in zoo.SHIPPED else Path(source)
    if is_variant(path):
        name = Facts.read(path / FACTS).name
        raise InvalidInput(f"{source} is optimised already: optimise what it was made of, {name}")
    return path if is_adapted(path) else source_of(source, "what is made of it")


def load(path: Path, place: Place, spec: NetworkSpec | None = None, store: Store | None = None) -> Model:
    """The model in a folder, with its variant.

    Warns `MeasuredElsewhere` on another machine. Raises `InvalidInput` on another kind of device, for another dtype
    than the variant's, and where the files are not those that were written.
    """
    facts = Facts.read(path / FACTS)
    given = {"dtype": place.asked, "spec": spec, "prediction or zero_snr": place.claims.names, "config": place.config}
    given |= {"lora": place.lora, "variant": place.variant}
    if names := [name for name, value in given.items() if value]:
        raise InvalidInput(
            f"{path} is optimised ({facts.variant}) and says its own: leave {', '.join(names)} out, or load "
            f"{facts.name}, which it was made of"
        )
    here = machine_of(place.device)
    kind = torch.device(place.device).type
    if not facts.machine.device.startswith(kind):
        raise InvalidInput(
            f"{path} was optimised for {facts.machine.device}, and the device is {here.device}: optimise "
            f"{facts.name} for it (fewstep optimize --device {kind})"
        )
    if not is_here(facts.machine, here):
        warnings.warn(
            f"{path} was measured on another machine ({facts.machine.processor}, {facts.machine.threads} threads): "
            f"optimise {facts.name} here to know what is fast",
            MeasuredElsewhere,
            stacklevel=2,
        )
    model = load_model(_inside(path), place)
    if model.weights != facts.files:
        raise InvalidInput(f"the weights in {path} are not those that were written there: optimise {facts.name} again")
    identity = replace(model.identity, name=path.name, weights=facts.weights)
    recommended = model.recommended if facts.recommended is None else facts.recommended
    return facts.variant.of(replace(model, identity=identity, recommended=recommended), facts.batches, store)


def _inside(folder: Path) -> str:
    """What is loaded in a folder."""
    return str(folder / FILE if (folder / FILE).is_file() else folder)


@quiet()
def _write_parts(made: Path, source: Path, model: Model, variant: Variant) -> None:
    """The parts of a folder in the format of diffusers; those that the variant changes in their new dtype."""
    base = Adapted(source, Place()).folder if is_adapted(source) else source
    part = part_of(base)
    shutil.copytree(base, made)
    if base != source:
        for name in KEPT:
            (made / name).unlink(missing_ok=True)
        shutil.rmtree(made / "plans", ignore_errors=True)
        for name in KEPT:
            if (source / name).is_file():
                found = {key: value for key, value in folders.read_json(source / name).items() if key != BASE}
                (made / name).write_text(json.dumps(found) + "\n", encoding="utf-8")
        if (source / "plans").is_dir():
            shutil.copytree(source / "plans", made / "plans")
    if variant.network is not None or base != source:
        _replace_weights(made / part, module_of(model))
    if variant.codec is not None:
        _replace_weights(made / "vae", model.codec.vae)  # type: ignore[attr-defined]  # the variant says it is one


def _replace_weights(folder: Path, module: Any) -> None:
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    module.save_pretrained(folder, safe_serialization=True)
