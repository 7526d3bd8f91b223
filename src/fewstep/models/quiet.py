"""Other libraries are quiet while a model is loaded: no bars for each part, no advice on how to install something.

What is wrong with a model is an error of fewstep, with what to do. What a library would say besides is about itself.
Levels and bars are settings of the process, so the first thread that loads changes them, and the last one brings them
back.
"""

from __future__ import annotations

import importlib
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_LIBRARIES = ("transformers.utils.logging", "diffusers.utils.logging")
_LOCK = threading.Lock()
_INSIDE: list[ExitStack] = []
"""One for each thread that is loading; the first holds what is to be brought back."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the bars, messages and warnings of the libraries, as far as nobody has asked for more of these."""
    with _LOCK:
        stack = ExitStack()
        if not _INSIDE:
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            for name in _LIBRARIES:
                _silence(name, stack)
            _INSIDE.append(stack)
        else:
            _INSIDE.append(_INSIDE[0])
    try:
        yield
    finally:
        with _LOCK:
            last = _INSIDE.pop()
            if not _INSIDE:
                last.close()


def _silence(name: str, stack: ExitStack) -> None:
    try:
        library = importlib.import_module(name)
    except ImportError:
        return
    level = library.get_verbosity()
    if level == logging.WARNING:  # the usual one; another was chosen
        library.set_verbosity(logging.CRITICAL)
        stack.callback(library.set_verbosity, level)
    if library.is_progress_bar_enabled():
        library.disable_progress_bar()
        stack.callback(library.enable_progress_bar)
