"""Safetensors files, read with bounds and written whole or not at all.

Nothing in such a file is executed. The library checks its header against the file's size before a tensor is made; here
the file's own size is bounded before it is read, and a file of another kind is named.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fewstep.core.errors import InvalidInput, shown
from fewstep.files import open_regular, write_whole

SIZE_LIMIT = 64 << 20
"""Most bytes that a file may have unless the caller says otherwise: 64 MiB, 16 million float32 weights."""

_FOREIGN = {
    b"PK\x03\x04": "a zip archive, such as torch.save writes (a pickle: opening one can run any code)",
    b"\x80\x02": "a Python pickle (opening one can run any code)",
    b"\x80\x03": "a Python pickle (opening one can run any code)",
    b"\x80\x04": "a Python pickle (opening one can run any code)",
    b"\x80\x05": "a Python pickle (opening one can run any code)",
    b"\x89PNG": "a PNG picture",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF model",
    b"\x89HDF": "an HDF5 file",
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
}


@dataclass(frozen=True)
class Header:
    """What a file says of its tensors, checked against the file's size.

    Attributes:
        path: where it came from.
        metadata: the header's free text fields.
        shapes: shape of each tensor, by name.
        dtypes: dtype of each tensor as safetensors writes it ("F32", "F16", ...), by name.
    """

    path: Path
    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor, by name, in memory of its own."""
        return safetensors.torch.load_file(self.path)

    def document(self, key: str, what: str) -> dict[str, Any]:
        """The JSON object that the metadata hold under `key`; `what` the file should be, for the error."""
        text = self.metadata.get(key)
        if text is None:
            raise InvalidInput(
                f"{self.path} is a safetensors file but not {what}: its metadata have no {key!r} "
                f"(they have {sorted(self.metadata)[:8]}). Give a file that fewstep wrote"
            )
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{self.path}: the metadata {key!r} are not valid JSON ({error})") from error
        if not isinstance(value, dict):
            raise InvalidInput(f"{self.path}: the metadata {key!r} are {shown(value)}; they have to be a JSON object")
        return value


def read(path: str | os.PathLike[str], max_bytes: int = SIZE_LIMIT) -> Header:
    """The header of a safetensors file of at most `max_bytes`, whose tensors are to be read.

    Raises as `inspect`, and `InvalidInput` for a larger file.
    """
    path = Path(path)
    size = path.stat().st_size if path.is_file() else 0
    if size > max_bytes:
        raise InvalidInput(f"{path} has {size:,} bytes; the limit is {max_bytes:,}. If you trust it, raise max_bytes")
    return inspect(path)


def inspect(path: str | os.PathLike[str]) -> Header:
    """The checked header of a safetensors file of any size, whose tensors are not read.

    Raises:
        FileNotFoundError: nothing is at `path`.
        InvalidInput: truncated, or not safetensors (a pickle is recognised and not opened).
    """
    path = Path(path)
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; give the .safetensors file in it")
    if not path.exists():
        raise FileNotFoundError(f"no file at {path}; check the path, or train one with `fewstep train`")
    open_regular(path).close()  # of a pipe or a device nothing is read
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # it is not a mapping
            shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
            dtypes = {name: one.get_dtype() for name, one in slices.items()}
            return Header(path, dict(file.metadata() or {}), shapes, dtypes)
    except (SafetensorError, OSError, ValueError) as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: Exception) -> InvalidInput:
    """What a file is that is not safetensors, or not whole."""
    with path.open("rb") as file:
        start = file.read(24)
    kind = next((kind for magic, kind in _FOREIGN.items() if start.startswith(magic)), None)
    if kind is not None and start[8:9] != b"{":  # a header of 1,408 bytes begins as a pickle does
        return InvalidInput(f"{path} is {kind}. fewstep opens only safetensors files; convert it where you trust it")
    return InvalidInput(
        f"{path} is not a safetensors file, or is truncated or damaged ({error}); fetch or train it again"
    )


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def write(path: str | os.PathLike[str], tensors: dict[str, Tensor], documents: dict[str, Any]) -> None:
    """Write tensors and JSON documents as one safetensors file, whole or not at all."""
    metadata = {key: json.dumps(value, sort_keys=True, allow_nan=False) for key, value in documents.items()}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, safetensors.torch.save(plain, metadata=metadata))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Replace the file at `path` by `content` in one move: a reader, or a crash, sees the old file or the new
    one."""
    path = Path(path)
    if not path.parent.is_dir():
        raise InvalidInput(f"cannot write {path}: the folder {path.parent} does not exist; make it first")
    write_whole(path, content)
