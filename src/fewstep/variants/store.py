"""Where compiled functions are kept between runs: a folder of the user's own, a file for each function and its shapes.

Such a file is machine code, and loading it runs it. So it lies where it was made, in no model's folder, and one that
somebody else could have written is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fewstep.core.errors import InvalidInput
from fewstep.files import write_whole
from fewstep.run.machine import machine_of

FOLDER = "FEWSTEP_CACHE"
"""The variable of the environment that names another folder."""


def usual_folder() -> Path:
    """Of the user: in that of `FOLDER`, else in that of the system's caches."""
    if own := os.environ.get(FOLDER):
        return Path(own) / "compiled"
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "fewstep" / "compiled"


@dataclass(frozen=True)
class Store:
    """Compiled functions in a folder.

    Attributes:
        folder: made at the first function.
        watch: told what is compiled before it is, which takes a minute or more.
    """

    folder: Path = field(default_factory=usual_folder)
    watch: Callable[[str], None] = lambda words: None

    def path(self, facts: Mapping[str, Any], device: torch.device | str) -> Path:
        """Of the function with these facts on this machine."""
        here = {**machine_of(device)._asdict(), "instructions": torch.backends.cpu.get_cpu_capability()}
        text = json.dumps({**facts, "machine": here}, sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.pt2"

    def loaded(self, path: Path, make: Callable[[Path], None], words: str) -> Callable[..., Any]:
        """The function that lies at a `path`, made where none does; `make` writes it.

        Raises `InvalidInput` for a folder or a file that others may write to.
        """
        if not path.exists():
            self.watch(words)
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            check_own(self.folder)
            part, began = path.with_name(f".{secrets.token_hex(8)}.pt2"), time.perf_counter()
            try:
                make(part)
                write_whole(self._seconds(path), f"{time.perf_counter() - began:.3f}\n".encode())
                os.replace(part, path)
            finally:
                with suppress(FileNotFoundError):
                    part.unlink()
        check_own(self.folder)
        check_own(path)
        return torch._inductor.aoti_load_package(str(path))

    def seconds(self, path: Path) -> float:
        """That the function at a path took to compile, whoever did; 0 where that is not known."""
        try:
            return float(self._seconds(path).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0.0

    def _seconds(self, path: Path) -> Path:
        return path.with_suffix(".seconds")


def check_own(path: Path) -> None:
    """Raise `InvalidInput` for what another user owns or may write to, as it would be run."""
    if not hasattr(os, "geteuid"):
        return
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InvalidInput(
            f"{path} holds machine code that would be run, and another user may write to it: take that right away "
            f"(chmod go-w), or name a folder of your own in {FOLDER}"
        )
