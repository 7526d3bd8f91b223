"""What other libraries say while a model is loaded is not shown."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from fewstep.models.quiet import quiet

from .tiny_diffusers import Twins

Models = Callable[..., Twins]


def renamed(folder: Path) -> None:
    """Weights of T5 by names of an earlier transformers, which that library itself has to load."""
    file = folder / "text_encoder_2/model.safetensors"
    tensors = load_file(file)
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"].clone()
    save_file(tensors, file)


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_loading_prints_nothing(models: Models, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(models(name).folder, tmp_path / name)
    if name == "flux":
        renamed(folder)
    code = f"import fewstep as fs; print(fs.load({str(folder)!r}, dtype='bfloat16').name)"
    run = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == (f"{name}\n", "")


def test_libraries_are_as_before_when_the_last_thread_has_loaded() -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    inside, leave = threading.Event(), threading.Event()

    def load() -> None:
        with quiet():
            inside.set()
            leave.wait(20)

    thread = threading.Thread(target=load)
    with quiet():
        thread.start()
        assert inside.wait(20)
    for library in (diffusers_logging, transformers_logging):  # the other thread still loads
        assert (library.get_verbosity(), library.is_progress_bar_enabled()) == (logging.CRITICAL, False)
    leave.set()
    thread.join()
    for library in (diffusers_logging, transformers_logging):
        assert (library.get_verbosity(), library.is_progress_bar_enabled()) == (logging.WARNING, True)
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_a_level_that_somebody_chose_is_kept() -> None:
    from diffusers.utils import logging as library

    library.set_verbosity_info()
    try:
        with quiet():
            assert library.get_verbosity() == logging.INFO
    finally:
        library.set_verbosity_warning()
