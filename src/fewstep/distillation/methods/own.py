"""A method of somebody's own: a class in a Python file, named by the path of the file and the name of the class."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.training import Method, Needs

CALLED = ("phase", "losses", "plan")
"""The functions that a method has at least."""


def is_path(name: str) -> bool:
    """Whether a name of a method is that of a file, and of a class in it: `path/to/method.py:Mimic`."""
    return name.partition(":")[0].endswith(".py")


def method_class(name: str) -> type[Method]:
    """The class of a method, by `path/to/method.py:Class`. The file is run.

    Raises `InvalidInput` where there is no such file or class, the file cannot be run, or the class is not a method;
    the message says which part is missing.
    """
    path, _, wanted = name.partition(":")
    module = _run(Path(path))
    own: dict[str, Any] = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__
    }
    if not wanted:
        raise InvalidInput(f"name the class too, as {path}:{next(iter(own), 'Method')}; {path} has {', '.join(own)}")
    if wanted not in own:
        raise unknown_name(f"class of {path}", wanted, own)
    missing = missing_parts(own[wanted])
    if missing:
        raise InvalidInput(
            f"{wanted} of {path} is not a method, as it has no {', no '.join(missing)}: see docs/distill.md, A method "
            "of your own"
        )
    return own[wanted]


def missing_parts(kind: Any) -> list[str]:
    """What a class lacks of the contract of a method, in words."""
    missing = [] if is_dataclass(kind) else ["@dataclass(frozen=True) above it"]
    missing += [] if isinstance(getattr(kind, "name", None), str) else ["name, a ClassVar[str]"]
    missing += [] if isinstance(getattr(kind, "needs", None), Needs) else ["needs, a ClassVar[Needs]"]
    return missing + [f"function {name}" for name in CALLED if not callable(getattr(kind, name, None))]


def _run(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidInput(f"{path} is not a file: a method of your own is named by its file and class, FILE.py:CLASS")
    name = f"fewstep_method_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up their annotations
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # of any kind, as the file may do anything
        del sys.modules[name]
        raise InvalidInput(f"{path} cannot be run ({type(error).__name__}: {error})") from error
    return module
