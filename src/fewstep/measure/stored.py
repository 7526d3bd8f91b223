"""Tensors and one JSON document in a safetensors file, written whole and checked when read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.files import write_whole


def write(path: str | os.PathLike[str], kind: str, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write a file of the given `kind`, in one move."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps({"kind": kind, **document}, sort_keys=True, allow_nan=False)
    write_whole(path, safetensors.torch.save(plain, metadata={"fewstep": text}))


def read(
    path: str | os.PathLike[str], kind: str, names: tuple[str, ...], keys: tuple[str, ...]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, document) of a file of `write`.

    Raises:
        FileNotFoundError: nothing is at `path`.
        InvalidInput: it is damaged, of another kind, lacks one of the tensors `names` or one of the document's `keys`,
            or holds values that are not finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {}).get("fewstep", "null"))
            found = set(file.keys())
            if not isinstance(document, dict) or document.get("kind") != kind:
                got = document.get("kind") if isinstance(document, dict) else None
                raise InvalidInput(f"{path} is not a {kind} that fewstep wrote (its kind is {got!r})")
            lacking = sorted((set(names) - found) | (set(keys) - set(document)))
            if lacking:
                raise InvalidInput(f"{path} lacks {', '.join(lacking)}: it is damaged, make it again")
            tensors = {name: file.get_tensor(name) for name in sorted(found)}
    except (SafetensorError, ValueError, RecursionError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"{path} is not a safetensors file, or it is damaged ({error}): make it again") from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidInput(f"{path}: {name} holds NaN or infinity: make it again")
    return tensors, document
