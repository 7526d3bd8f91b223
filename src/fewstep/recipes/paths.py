"""Where a recipe writes that makes one file: the file, and beside it a folder with states and log while it runs."""

from __future__ import annotations

from pathlib import Path

from fewstep.core.errors import InvalidInput


def check_file(out: Path) -> None:
    """Raise `InvalidInput` where `out` cannot be the file of a trained network."""
    if out.suffix != ".safetensors" or not out.parent.is_dir():
        raise InvalidInput(f"cannot write {out}; give a path that ends in .safetensors, in a folder that exists")


def folder_of(out: Path) -> Path:
    """The folder of states and log, of the file's name without its ending."""
    return out.with_suffix("")
