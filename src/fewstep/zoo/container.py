"""Safetensors files, read with bounds and written whole or not at all.

A safetensors file is 8 bytes (the header's length, little endian), a JSON header that names each tensor's
dtype, shape and place, and the bytes of the tensors. Nothing in it is executed. Here the file's size and the
header's length are checked before any memory is taken for them, and the header before any tensor is made.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.files import write_whole

HEADER_LIMIT = 1 << 20
"""Most bytes that a header may have: 1 MiB, some 10,000 tensors."""

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


@dataclass(frozen=True)
class Container(Header):
    """A file that is read, with a header that is checked, but whose tensors are not made yet."""

    _content: bytes

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor, by name, in memory of its own."""
        try:
            return {name: tensor.clone() for name, tensor in safetensors.torch.load(self._content).items()}
        except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
            raise InvalidInput(f"{self.path} has a damaged tensor table ({error}); fetch or train it again") from error

    def document(self, key: str, what: str) -> dict[str, Any]:
        """The JSON object that the metadata hold under `key`; `what` the file should be, for the error."""
        text = self.metadata.get(key)
        if text is None:
            raise InvalidInput(
                f"{self.path} is a safetensors file but not {what}: its metadata have no {key!r} "
                f"(they have {sorted(self.metadata)[:8]}). Give a file that fewstep wrote"
            )
        value = _parse(text, f"{self.path}: the metadata {key!r}")
        if not isinstance(value, dict):
            raise InvalidInput(f"{self.path}: the metadata {key!r} are {_shown(value)}; they have to be a JSON object")
        return value


def read(path: str | os.PathLike[str], max_bytes: int = SIZE_LIMIT) -> Container:
    """Read a safetensors file of at most `max_bytes` and check its header.

    Raises:
        FileNotFoundError: nothing is at `path`.
        InvalidInput: too large, truncated, or not safetensors (a pickle is recognised and not opened).
    """
    path = _file(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise InvalidInput(
                f"{path} has {size:,} bytes; the limit is {max_bytes:,}. If you trust it, raise max_bytes"
            )
        _refuse_foreign(path, file.read(24))
        file.seek(0)
        content = file.read(max_bytes + 1)
    return Container(*_fields(path, content, len(content)), content)


def inspect(path: str | os.PathLike[str]) -> Header:
    """The checked header of a safetensors file of any size, whose tensors are not read.

    Raises:
        FileNotFoundError: nothing is at `path`.
        InvalidInput: truncated, or not safetensors (a pickle is recognised and not opened).
    """
    path = _file(path)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(24)
        _refuse_foreign(path, start)
        length = int.from_bytes(start[:8], "little")
        rest = file.read(max(0, 8 + length - len(start))) if length <= HEADER_LIMIT else b""
    return Header(*_fields(path, start + rest, size))


def _file(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; give the .safetensors file in it")
    if not path.exists():
        raise FileNotFoundError(f"no file at {path}; check the path, or train one with `fewstep train`")
    return path


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


def _refuse_foreign(path: Path, start: bytes) -> None:
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= HEADER_LIMIT:
        return  # a header of 1,408 bytes begins as a pickle does
    for magic, kind in _FOREIGN.items():
        if start.startswith(magic):
            raise InvalidInput(f"{path} is {kind}. fewstep opens only safetensors files; convert it where you trust it")


def _fields(path: Path, start: bytes, size: int) -> tuple[Path, dict[str, str], dict[str, Any], dict[str, str]]:
    """The fields of a `Header` from the beginning of a file of `size` bytes."""
    header = _header(path, start, size)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise InvalidInput(f"{path}: the metadata have to be text, got {_shown(metadata)}; the file is damaged")
    shapes, dtypes = {}, {}
    for name, entry in header.items():
        shapes[name], dtypes[name] = _entry(path, name, entry)
    return path, metadata, shapes, dtypes


def _header(path: Path, start: bytes, size: int) -> dict[str, Any]:
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or start[8:9] != b"{":
        raise InvalidInput(
            f"{path} is not a safetensors file (it has {size:,} bytes and begins with "
            f"{start[:12]!r}); give a safetensors file"
        )
    if length > HEADER_LIMIT:
        raise InvalidInput(
            f"{path} asks for a header of {length:,} bytes; the limit is {HEADER_LIMIT:,}. It is damaged"
        )
    if length > size - 8:
        raise InvalidInput(
            f"{path} is truncated: its header alone should have {length:,} bytes, {size - 8:,} are "
            "there; fetch or train it again"
        )
    header = _parse(start[8 : 8 + length], f"{path}: the header")
    if not isinstance(header, dict):
        raise InvalidInput(f"{path}: the header is {_shown(header)}; it has to be a JSON object")
    promised = max((_end(name, entry) or 0 for name, entry in header.items()), default=0)
    there = size - 8 - length
    if promised > there:
        raise InvalidInput(
            f"{path} is truncated: its tensors should have {promised:,} bytes, {there:,} are there; "
            "fetch or train it again"
        )
    return header


def _end(name: str, entry: Any) -> int | None:
    """Where the bytes of a tensor end, counted from the first tensor's first, or None for a damaged entry."""
    offsets = entry.get("data_offsets") if isinstance(entry, dict) and name != "__metadata__" else None
    if isinstance(offsets, list) and len(offsets) == 2 and all(type(offset) is int for offset in offsets):
        return offsets[1]
    return None


def _entry(path: Path, name: str, entry: Any) -> tuple[tuple[int, ...], str]:
    """(shape, dtype) of one tensor."""
    shape, dtype = (entry.get("shape"), entry.get("dtype")) if isinstance(entry, dict) else (None, None)
    sound = isinstance(shape, list) and all(type(length) is int and length >= 0 for length in shape)
    if isinstance(shape, list) and sound and isinstance(dtype, str) and _end(name, entry) is not None:
        return tuple(shape), dtype
    raise InvalidInput(f"{path}: the header's entry of tensor {name!r} is {_shown(entry)}; the file is damaged")


def _parse(text: str | bytes, what: str) -> Any:
    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{what} is not valid JSON ({error}); the file is damaged") from error


def _shown(value: object) -> str:
    """The repr of a value from a file, cut to a length that suits an error."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
