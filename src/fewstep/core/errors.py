"""Errors that say what was got, what is allowed and what to do."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any


class InvalidInput(ValueError):
    """A value that the caller gave cannot be used; the message names it, what is allowed and the remedy."""


def unknown_name(what: str, got: str, known: Iterable[str]) -> InvalidInput:
    """An `InvalidInput` for `got` that names the nearest of the `known` names, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(got.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InvalidInput(f"unknown {what} {got!r}: {hint}known are {', '.join(names)}")


def positive(name: str, value: float) -> float:
    """`value` as a float; raises `InvalidInput` unless it is a finite number above zero."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidInput(f"{name} must be a finite number above zero, got {value!r}")
    return float(value)


def number(name: str, value: Any) -> float:
    """`value` as a float; raises `InvalidInput` unless it is a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInput(f"{name} is a finite number, got {shown(value)}")
    return float(value)


def not_negative(**values: float) -> None:
    """Raise `InvalidInput` unless all are finite numbers of at least 0."""
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise InvalidInput(f"{name} must be a finite number of at least 0, got {value:g}")


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise `InvalidInput` unless `value` is one of `allowed`."""
    if value not in (known := list(allowed)):
        raise InvalidInput(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")


def shown(value: object) -> str:
    """The repr of a value from elsewhere, cut to a length that suits an error."""
    try:
        text = repr(value)
    except ValueError:  # Python writes out no number of more than 4,300 digits
        digits = int(abs(value).bit_length() * math.log10(2)) + 1 if isinstance(value, int) else 0
        text = f"a number of about {digits:,} digits" if digits else f"{type(value).__name__} with too long a number"
    except RecursionError:
        text = f"{type(value).__name__} whose values are too deep in one another"
    return text if len(text) <= 80 else text[:77] + "..."
