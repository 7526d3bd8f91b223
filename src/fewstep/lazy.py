"""Names of a package that are imported when they are first used, so that a light one loads no other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

NO_ROOMS: Mapping[str, str] = MappingProxyType({})


def importer(package: str, homes: Mapping[str, str], rooms: Mapping[str, str] = NO_ROOMS) -> Callable[[str], Any]:
    """The `__getattr__` of a package, from the modules where its names live (PEP 562). A name is looked up once.

    Args:
        homes: the module of each name; `rooms`: the modules that are names of the package themselves.
    """

    def find(name: str) -> Any:
        if name in rooms:
            value = importlib.import_module(rooms[name])
        elif name in homes:
            value = getattr(importlib.import_module(homes[name]), name)
        else:
            known = ", ".join(sorted((*homes, *rooms)))
            raise AttributeError(f"module {package!r} has no attribute {name!r}; it has {known}")
        setattr(sys.modules[package], name, value)
        return value

    return find
