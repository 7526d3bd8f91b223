"""Errors that say what was got, what is allowed and what to do."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Iterable
from typing import Any


class InvalidInput(ValueError):
    """A value that the caller gave cannot be used; the message names it, what is allowed and the remedy."""


def unknown_name(what: str, got: str, known: Iterable[str]) -> InvalidInput:
    """An `InvalidInput` for `got` that names the nearest of the `known` names, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(got.lower()[:80], names, n=1, cutoff=0.5)  # which takes time on long texts
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InvalidInput(f"unknown {what} {shown(got)}: {hint}known are {', '.join(names)}")


def positive(name: str, value: float) -> float:
    """`value` as a float; raises `InvalidInput` unless it is a finite number above zero."""
    if not is_finite(value) or not value > 0:
        raise InvalidInput(f"{name} must be a finite number above zero, got {shown(value)}")
    return float(value)


def number(name: str, value: Any) -> float:
    """`value` as a float; raises `InvalidInput` unless it is a finite number."""
    if not is_finite(value):
        raise InvalidInput(f"{name} is a finite number, got {shown(value)}")
    return float(value)


def is_finite(value: Any) -> bool:
    """Whether `value` is a number that a float can hold. A whole number of 400 digits is not."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return usable and abs(value) <= sys.float_info.max


def not_negative(**values: float) -> None:
    """Raise `InvalidInput` unless all are finite numbers of at least 0."""
    for name, value in values.items():
        if not is_finite(value) or value < 0:
            raise InvalidInput(f"{name} must be a finite number of at least 0, got {shown(value)}")


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raise `InvalidInput` unless `value` is one of `allowed`."""
    if value not in (known := list(allowed)):
        raise InvalidInput(f"{name} must be one of {', '.join(map(repr, known))}, got {shown(value)}")


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
