"""JSON objects from elsewhere, read field by field: every value has a kind and bounds, and no field is unknown."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from fewstep.core.errors import InvalidInput

T = TypeVar("T")
Scalar = str | int | float | bool | None

MOST_OPTIONS, LONGEST_TEXT = 32, 200


class Fields:
    """The object `value`, which has exactly the fields `known`; `where` names it in errors."""

    def __init__(self, value: Any, where: str, known: Collection[str]):
        if not isinstance(value, dict):
            raise InvalidInput(f"{where} is {shown(value)}; it has to be a JSON object")
        missing, unknown = sorted(set(known) - set(value)), sorted(set(value) - set(known))
        if missing or unknown:
            raise InvalidInput(f"{where} lacks {shown(missing)} and has unknown {shown(unknown)}")
        self.value, self.where = value, where

    def refuse(self, name: str, allowed: str) -> InvalidInput:
        """The error for a field whose value is not `allowed`."""
        return InvalidInput(f"{self.where}: {name} is {shown(self.value[name])}; it has to be {allowed}")

    def whole(self, name: str, low: int, high: int) -> int:
        """An integer in [low, high]."""
        if not _is_whole(self.value[name], low, high):
            raise self.refuse(name, f"a whole number from {low} to {high}")
        return self.value[name]

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number in [low, high]."""
        value = self.value[name]
        if not _is_number(value) or not low <= value <= high:
            bounds = "" if low == -math.inf and high == math.inf else f" from {low:g} to {high:g}"
            raise self.refuse(name, f"a finite number{bounds}")
        return float(value)

    def flag(self, name: str) -> bool:
        """true or false."""
        if not isinstance(self.value[name], bool):
            raise self.refuse(name, "true or false")
        return self.value[name]

    def text(self, name: str) -> str:
        """A string of at most 200 printable characters."""
        value = self.value[name]
        if not isinstance(value, str) or len(value) > LONGEST_TEXT or not value.isprintable():
            raise self.refuse(name, f"a text of at most {LONGEST_TEXT} printable characters")
        return value

    def texts(self, name: str, least: int, most: int, longest: int) -> list[str]:
        """`least` to `most` strings of at most `longest` characters."""
        value = self.value[name]
        if (
            not isinstance(value, list)
            or not least <= len(value) <= most
            or not all(isinstance(text, str) and len(text) <= longest for text in value)
        ):
            raise self.refuse(name, f"a list of {least} to {most} texts of at most {longest} characters")
        return value

    def digest(self, name: str) -> str:
        """Sixteen hexadecimal digits."""
        value = self.value[name]
        if not isinstance(value, str) or len(value) != 16 or not set(value) <= set("0123456789abcdef"):
            raise self.refuse(name, "16 hexadecimal digits")
        return value

    def wholes(self, name: str, low: int, high: int, most: int) -> list[int]:
        """1 to `most` integers in [low, high]."""
        value = self.value[name]
        if (
            not isinstance(value, list)
            or not 1 <= len(value) <= most
            or not all(_is_whole(v, low, high) for v in value)
        ):
            raise self.refuse(name, f"a list of 1 to {most} whole numbers from {low} to {high}")
        return value

    def numbers(self, name: str, least: int, most: int) -> list[float]:
        """`least` to `most` finite numbers."""
        value = self.value[name]
        if not isinstance(value, list) or not least <= len(value) <= most or not all(map(_is_number, value)):
            raise self.refuse(name, f"a list of {least} to {most} finite numbers")
        return [float(v) for v in value]

    def options(self, name: str) -> dict[str, Any]:
        """Options by name: numbers, short texts, true, false and null, or short lists of them."""
        value = self.value[name]
        if isinstance(value, dict) and len(value) <= MOST_OPTIONS and all(_is_option(v) for v in value.values()):
            return value
        raise self.refuse(name, f"an object of at most {MOST_OPTIONS} numbers, short texts, true, false or null")

    def optional(self, name: str, read: Callable[..., T], *bounds: Any) -> T | None:
        """None where the field is null, else what `read(name, *bounds)` makes of it."""
        return None if self.value[name] is None else read(name, *bounds)


def shown(value: object) -> str:
    """The repr of a value from elsewhere, cut to a length that suits an error."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300 and value == value


def _is_option(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= MOST_OPTIONS and all(_is_option(v) and not isinstance(v, list) for v in value)
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT and value.isprintable()
    return value is None or isinstance(value, bool) or _is_number(value)
