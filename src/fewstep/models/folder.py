"""Where a model lies: a folder in the format of diffusers, here or on the Hugging Face hub, checked before loading.

A folder holds `model_index.json`, which names the pipeline and its parts, and one folder for each part with its
`config.json` and its weights. Only JSON, text and safetensors are read; a pickle is refused unless the caller allows
it. Sizes are checked by `fewstep.zoo.container`, so a truncated or renamed file is found before memory is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from fewstep.core.errors import InvalidInput, shown
from fewstep.files import read_bounded
from fewstep.zoo import container

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
BASES = ("diffusion_pytorch_model", "model")
"""What diffusers and transformers call the weights of a part."""
JSON_LIMIT, TEXT_LIMIT = 4 << 20, 64 << 20
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Weights:
    """The weights of one part.

    Attributes:
        folder: of the part.
        files: safetensors, or pickles where they were allowed.
        elements: numbers in the files, or None for pickles, which do not say.
        variant: the middle of the files' names, such as "fp16", or None.
    """

    folder: Path
    files: tuple[Path, ...]
    elements: int | None
    variant: str | None

    @property
    def pickled(self) -> bool:
        """Whether the files are pickles."""
        return self.elements is None


def is_hub_id(source: str) -> bool:
    """Whether `source` has the form of a name on the hub, "org/name", and is not the name of a file of weights."""
    return HUB_ID.fullmatch(source) is not None and Path(source).suffix not in (".safetensors", *PICKLES)


def fetched(name: str, variant: str | None = None, pickles: bool = False, parts: Sequence[str] | None = None) -> Path:
    """The local copy of a model on the hub, fetched where it is not there yet; HF_HUB_OFFLINE is honoured.

    With `parts`, fetches the weights of these alone; () means configurations and tokenizers only.

    Raises `InvalidInput` where it cannot fetch it: offline and not in the cache, no such model, or no permission.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise InvalidInput("models of the hub need huggingface_hub: pip install 'fewstep[diffusers]'") from error
    middle = "" if variant is None else f".{variant}"
    kinds = ["safetensors", *(["bin"] if pickles else [])]
    weights = [
        f"*{base}{end}" for base in BASES for kind in kinds for end in (f"{middle}.{kind}", f"{middle}-*-of-*.{kind}")
    ]
    if parts is not None:
        weights = [f"{part}/{pattern}" for part in parts for pattern in weights]
    offline = huggingface_hub.constants.HF_HUB_OFFLINE
    try:
        path = huggingface_hub.snapshot_download(
            name, allow_patterns=["*.json", "*.txt", "*.model", *weights], local_files_only=offline
        )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        why = "HF_HUB_OFFLINE is set" if offline else f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        raise InvalidInput(
            f"the model {name!r} is neither in the local cache of the hub nor can it be fetched ({why}): check the "
            "name and the connection, fetch it once while online, or give the path of a local folder"
        ) from error
    return Path(path)


def fetched_whole(name: str, variant: str | None, pickles: bool) -> Path:
    """As `fetched`, with the plain weights of the parts that have no such variant where others have one."""
    path = fetched(name, variant, pickles)
    if variant is None:
        return path
    parts = [folder for folder in sorted(path.iterdir()) if (folder / "config.json").is_file()]
    lacking = [folder.name for folder in parts if not has_variant(folder, variant)]
    return path if not lacking or len(lacking) == len(parts) else fetched(name, None, pickles, parts=lacking)


def read_json(path: Path, limit: int = JSON_LIMIT) -> dict[str, Any]:
    """The JSON object in a file of at most `limit` bytes; raises OSError for what is there and is not a file."""
    if not path.exists():
        raise InvalidInput(f"{path} is missing: the folder is not a whole diffusers model; fetch or save it again")
    try:
        value = json.loads(read_bounded(path, limit).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON ({error}): the file is damaged; fetch or save it again") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"{path} holds {shown(value)}; it has to be a JSON object")
    return value


def find_weights(folder: Path, variant: str | None = None, allow_pickle: bool = False) -> Weights:
    """The weights in the folder of a part, their headers checked.

    Raises:
        InvalidInput: there are none, a file is truncated or not safetensors, or they are pickles and not allowed.
    """
    middle = "" if variant is None else f".{variant}"
    for base in BASES:
        single = folder / f"{base}{middle}.safetensors"
        files: Sequence[Path] = (single,) if single.is_file() else _shards(folder, base, variant)
        if files:
            headers = [container.inspect(file) for file in files]
            elements = sum(prod(shape) for header in headers for shape in header.shapes.values())
            return Weights(folder, tuple(files), elements, variant)
    there = sorted(file.name for file in folder.iterdir() if file.suffix in (".safetensors", *PICKLES))
    pickled = [folder / f"{base}.bin" for base in ("diffusion_pytorch_model", "pytorch_model")]
    pickled = [file for file in pickled if file.is_file()]
    if pickled and not allow_pickle:
        raise InvalidInput(
            f"{folder} has its weights only as a pickle, {pickled[0].name}, and opening one can run any code: give "
            "a folder with safetensors, or, if you trust its origin, allow_pickle=True, which loads weights alone"
        )
    if pickled and variant is None:
        return Weights(folder, tuple(pickled[:1]), None, None)
    raise InvalidInput(
        f"{folder} holds no {BASES[0]}{middle}.safetensors or {BASES[1]}{middle}.safetensors (it has "
        f"{', '.join(there) or 'no weights'}): fetch or save it again, or name the variant, such as variant='fp16'"
    )


def has_variant(folder: Path, variant: str) -> bool:
    """Whether the folder of a part holds weights of a variant, by the names of its files."""
    marks = (f".{variant}.", f".{variant}-")
    kinds = (".safetensors", ".json", *PICKLES)
    return folder.is_dir() and any(
        file.suffix in kinds and any(mark in file.name for mark in marks) for file in folder.iterdir()
    )


def _shards(folder: Path, base: str, variant: str | None) -> list[Path]:
    """The files that an index names; transformers and diffusers place the variant differently."""
    middle = "" if variant is None else f".{variant}"
    for name in {f"{base}.safetensors.index{middle}.json", f"{base}{middle}.safetensors.index.json"}:
        if (folder / name).is_file():
            table = read_json(folder / name, 64 << 20).get("weight_map")
            if not isinstance(table, Mapping) or not all(
                isinstance(v, str) and v == os.path.basename(v) and v.endswith(".safetensors") for v in table.values()
            ):
                raise InvalidInput(f"{folder / name} has no sound weight_map of safetensors files beside it")
            files = [folder / file for file in sorted(set(table.values()))]
            absent = [file.name for file in files if not file.is_file()]
            if absent:
                raise InvalidInput(f"{folder} lacks {', '.join(absent[:4])}, which {name} names: fetch it again")
            return files
    return []


def digest_of(files: Sequence[Path], *facts: Any) -> str:
    """Sixteen hexadecimal digits over the contents of files, which are named by their last two parts, and facts."""
    state = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for file in files:
        state.update(f"\0{file.parent.name}/{file.name}\0{file.stat().st_size}\0".encode())
        _feed(state, file)
    return state.hexdigest()[:16]


def content_digest(file: Path) -> str:
    """Sixteen hexadecimal digits over the content of a file, whatever its name."""
    state = hashlib.sha256()
    _feed(state, file)
    return state.hexdigest()[:16]


def _feed(state: Any, file: Path) -> None:
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            state.update(block)
