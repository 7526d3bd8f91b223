"""The methods of guidance by name. None of this imports torch, so that commands and forms can list them at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fewstep.core.errors import InvalidInput, shown, unknown_name
from fewstep.denoise.apg import APG
from fewstep.denoise.autoguidance import AutoGuidance
from fewstep.denoise.cfg import CFG
from fewstep.denoise.cfgpp import CFGPlusPlus
from fewstep.denoise.cfgzero import CFGZero
from fewstep.denoise.method import Method
from fewstep.denoise.pag import PAG

METHODS: Mapping[str, type[Method]] = {
    method.name: method for method in (CFG, APG, CFGPlusPlus, CFGZero, PAG, AutoGuidance)
}
_OTHER_SPELLINGS = {"cfg-zero": "cfg-zero*"}
"""For shells, to which a star means files."""


def method_of(name: Any, options: Mapping[str, Any] | None = None) -> Method:
    """The method `name`, with the `options` that are given as plain values and the others by default.

    Raises:
        InvalidInput: for an unknown name or option, and a value that an option cannot take.
    """
    method, given = str(name), {} if options is None else options
    method = _OTHER_SPELLINGS.get(method, method)
    if method not in METHODS:
        raise unknown_name("guidance method", method, METHODS)
    if not isinstance(given, Mapping):
        raise InvalidInput(f"guidance_options is a mapping from names to values, got {shown(given)}")
    known = [field.name for field in fields(METHODS[method])]
    for option, value in given.items():
        if not known:
            raise InvalidInput(f"the guidance method {method} has no options, got {shown(option)}: leave it out")
        if option not in known:
            raise unknown_name(f"option of the guidance method {method}", str(option), known)
        if not isinstance(value, int | float | str | list | tuple | None):
            raise InvalidInput(f"the guidance option {option} is a finite number or a text, got {shown(value)}")
    return METHODS[method](**given)
