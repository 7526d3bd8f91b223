"""Embeddings of prompts and latents of pictures, kept by the digest of what they were computed from.

They are in memory and, with a folder, on disk. Both hold at most so many bytes and drop what was used longest ago. An
entry on disk is one safetensors file, written whole or not at all; a damaged one counts as absent and is removed. A
folder that cannot be written, as on a full disk, is said once, and the work goes on.
Threads may share a cache, and processes a folder; two threads that want the same entry make it once.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.zoo import container

Tensors = Mapping[str, Tensor]
MEMORY, DISK = 256 << 20, 1 << 30
"""Most bytes of a cache unless the caller says otherwise: 256 MiB in memory, 1 GiB on disk."""


@dataclass(frozen=True)
class CacheCounts:
    """What a cache did so far.

    Attributes:
        hits: entries that were there, of which `from_disk` were read from the folder.
        misses: entries that were not.
        encodes: entries that were made, which is `misses` unless making one failed.
        seconds: that making them took; `seconds_saved`: that making the hits again would have taken.
        entries, bytes: what is in memory now.
    """

    hits: int = 0
    from_disk: int = 0
    misses: int = 0
    encodes: int = 0
    seconds: float = 0.0
    seconds_saved: float = 0.0
    entries: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class _Entry:
    """Tensors, the seconds that making them took, and their size in bytes."""

    tensors: Tensors
    seconds: float
    size: int


def key_of(*facts: Any) -> str:
    """The key of an entry: 64 hexadecimal digits over facts that JSON can hold."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _size_of(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


class TensorCache:
    """Named tensors by key.

    Args:
        max_bytes: most bytes in memory; 0 keeps nothing there.
        folder: for entries on disk, made where missing; None is memory alone.
        max_disk_bytes: most bytes in the folder.

    Tensors that it returns are shared: nobody may write to them.
    """

    def __init__(
        self, max_bytes: int = MEMORY, folder: str | os.PathLike[str] | None = None, max_disk_bytes: int = DISK
    ):
        for name, value in (("max_bytes", max_bytes), ("max_disk_bytes", max_disk_bytes)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidInput(f"{name} of a cache must be a whole number of bytes from 0, got {value!r}")
        self.max_bytes, self.max_disk_bytes = max_bytes, max_disk_bytes
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None and self.folder.exists() and not self.folder.is_dir():
            raise InvalidInput(f"the cache {self.folder} is not a folder: give one, or a name that is not there yet")
        self._warned = False
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._held = 0
        self._making: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._counts = CacheCounts()

    @property
    def counts(self) -> CacheCounts:
        """What the cache did so far."""
        with self._lock:
            return replace(self._counts, entries=len(self._entries), bytes=self._held)

    def get_or_make(self, key: str, make: Callable[[], Tensors]) -> Tensors:
        """The entry `key` (of `key_of`), made by `make` where it is not there yet."""
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None:
                    self._entries.move_to_end(key)
                    self._count(hits=1, seconds_saved=entry.seconds)
                    return entry.tensors
                other = self._making.get(key)
                if other is None:
                    mine = self._making[key] = threading.Event()
                    break
            other.wait()
        try:
            entry = None if self.folder is None else self._read(self.folder, key)
            if entry is None:
                entry = self._made(key, make)
            else:
                with self._lock:
                    self._count(hits=1, from_disk=1, seconds_saved=entry.seconds)
            with self._lock:
                self._keep(key, entry)
            return entry.tensors
        finally:
            with self._lock:
                del self._making[key]
            mine.set()

    def clear(self) -> None:
        """Forget what is in memory; the folder stays as it is."""
        with self._lock:
            self._entries.clear()
            self._held = 0

    def _made(self, key: str, make: Callable[[], Tensors]) -> _Entry:
        with self._lock:
            self._count(misses=1)
        began = time.perf_counter()
        tensors = dict(make())
        entry = _Entry(tensors, time.perf_counter() - began, _size_of(tensors))
        with self._lock:
            self._count(encodes=1, seconds=entry.seconds)
        if self.folder is not None and entry.size <= self.max_disk_bytes:
            try:
                self._write(self.folder, key, entry)
            except OSError as error:  # a full disk, above all: what was computed is there all the same
                self._warn(self.folder, error)
        return entry

    def _warn(self, folder: Path, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            why = error.strerror or type(error).__name__
            warnings.warn(
                f"the cache {folder} keeps nothing more ({why}): make room, or give another folder",
                UserWarning,
                stacklevel=2,
            )

    def _keep(self, key: str, entry: _Entry) -> None:
        """In memory, and drop what was used longest ago."""
        if entry.size > self.max_bytes:
            return
        self._entries[key] = entry
        self._held += entry.size
        while self._held > self.max_bytes:
            self._held -= self._entries.popitem(last=False)[1].size

    def _count(self, **more: float) -> None:
        self._counts = replace(self._counts, **{name: getattr(self._counts, name) + n for name, n in more.items()})

    def _read(self, folder: Path, key: str) -> _Entry | None:
        path = folder / f"{key}.safetensors"
        try:
            file = container.read(path, max(self.max_disk_bytes, 1))
            facts = file.document("fewstep-cache", "an entry of a cache")
            if facts.get("key") != key or not isinstance(facts.get("seconds"), float):
                raise InvalidInput(f"{path} is another entry than its name says")
            tensors = file.tensors()
            with suppress(OSError):
                os.utime(path)  # it was used now
        except OSError:
            return None
        except InvalidInput:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        return _Entry(tensors, facts["seconds"], _size_of(tensors))

    def _write(self, folder: Path, key: str, entry: _Entry) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        facts = {"key": key, "seconds": entry.seconds}
        container.write(folder / f"{key}.safetensors", dict(entry.tensors), {"fewstep-cache": facts})
        files = []
        for path in folder.glob("*.safetensors"):
            try:
                status = path.stat()
            except FileNotFoundError:  # another process removed it
                continue
            files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self.max_disk_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size
