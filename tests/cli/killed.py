"""Runs of the command in processes that are cheap to start and to kill: forked from one that has imported all."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

PRELOADED = ["fewstep.cli.batch", "fewstep.cli.generate", "fewstep.pipeline", "torch._dynamo", "PIL.PngImagePlugin"]
"""What a run imports; torch imports the fourth where a network is made without memory."""


def start(folder: Path, words: list[str], die_at: int | None = None) -> Any:
    """`fewstep` with `words` in `folder`; it kills itself with SIGKILL at its write number `die_at`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_main, args=(str(folder), words, die_at))
    process.start()
    return process


def _main(folder: str, words: list[str], die_at: int | None) -> None:
    import torch

    from fewstep.cli.app import app

    torch.set_num_threads(1)
    os.chdir(folder)
    if die_at is not None:
        _die_at(die_at)
    app.main(words)


def _die_at(write: int) -> None:
    """Count what changes the disk; number `write` does not happen, or, where it appends, only half of it does."""
    turns = itertools.count()
    append, inner = os.write, {"replace": os.replace, "fsync": os.fsync}

    def written(handle: int, content: bytes) -> int:
        if next(turns) == write:
            append(handle, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return append(handle, content)

    def counted(name: str) -> Callable[..., None]:
        def call(*args: Any) -> None:
            if next(turns) == write:
                os.kill(os.getpid(), signal.SIGKILL)
            inner[name](*args)

        return call

    os.write, os.replace, os.fsync = written, counted("replace"), counted("fsync")  # type: ignore[assignment]
