"""Settings that methods have in common, checked as they are given, from the command line too."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fewstep.core.errors import InvalidInput, is_finite, number, shown, unknown_name


def take_lists(settings: Any, *names: str) -> None:
    """Settings of several values become tuples; a list, or one value alone, is taken too."""
    for name in names:
        given = getattr(settings, name)
        object.__setattr__(settings, name, tuple(given) if isinstance(given, list | tuple) else (given,))


def check_counts(settings: Any, **most: int | None) -> None:
    """Raise `InvalidInput` unless settings are whole numbers from 1 to the most of each, None for no limit."""
    for name, limit in most.items():
        value = getattr(settings, name)
        if type(value) is not int or value < 1 or (limit is not None and value > limit):
            allowed = "of at least 1" if limit is None else f"from 1 to {limit}"
            raise InvalidInput(f"{name} must be a whole number {allowed}, got {shown(value)}")


def check_known(settings: Any, **known: Collection[str]) -> None:
    """Raise `InvalidInput` unless settings are names that are known."""
    for name, names in known.items():
        value = getattr(settings, name)
        if value not in names:
            raise unknown_name(name, str(value), names)


def check_weights(settings: Any, *names: str) -> None:
    """Raise `InvalidInput` unless settings are numbers of at least 0."""
    for name in names:
        value = getattr(settings, name)
        if not is_finite(value) or value < 0:
            raise InvalidInput(f"{name} must be a number of at least 0, got {value!r}")


def check_rates(settings: Any, *names: str) -> None:
    """Raise `InvalidInput` unless settings are None or numbers above 0."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not (is_finite(value) and value > 0):
            raise InvalidInput(f"{name} must be a number above 0, got {value!r}")


def check_times(settings: Any) -> None:
    """Raise `InvalidInput` unless all `times` are numbers."""
    for time in settings.times:
        number("each of times", time)


def check_range(settings: Any) -> None:
    """Raise `InvalidInput` unless `lowest` and `highest` are rising shares."""
    low, high = settings.lowest, settings.highest
    if not (is_finite(low) and is_finite(high) and 0 <= low < high <= 1):
        raise InvalidInput(f"lowest and highest are shares of the range of noise, 0 to 1, got {low!r} and {high!r}")
