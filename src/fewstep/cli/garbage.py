"""When Python looks for garbage: not while libraries are imported.

They leave a million objects that live as long as the process. To go through these takes 0.2 s, and while modules and
models are loaded it happens more than once. So it waits until a command begins and its model is there, and what is
there then is never looked at again.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def wait() -> None:
    """Look for no garbage until `go_on`. Only for a process of our own."""
    gc.disable()


def go_on() -> None:
    """Look for garbage again, after `wait` and among new objects alone; nothing to do without it."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


@contextmanager
def waiting() -> Iterator[None]:
    """Look for none within, where the process is our own: `wait` was called before."""
    ours = gc.isenabled() and gc.get_freeze_count() > 0
    if ours:
        wait()
    try:
        yield
    finally:
        if ours:
            go_on()
