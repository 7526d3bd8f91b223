"""Kinds of values that options take: `key=value`, lists of numbers, labels, a schedule with its parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import fewstep as fs
from fewstep.core import unknown_name

LETTERS = {"a label": "L", "a seed": "S", "a weight": "W", "a guidance scale": "X", "a start": "X"}
"""What values of a list are called in the help; others are N."""
Context = click.Context | None
Parameter = click.Parameter | None


def scalar(text: str) -> Any:
    """`text` as a whole number, a number, true, false or none where it is one; else itself."""
    words = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _pair(text: str) -> tuple[str, Any] | None:
    key, equals, value = text.partition("=")
    key = key.strip().replace("-", "_")
    return (key, scalar(value.strip())) if equals and key else None


class Pair(click.ParamType):
    """`key=value`."""

    name = "key=value"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[str, Any]:
        found = _pair(value) if isinstance(value, str) else value
        if found is None:
            self.fail(f"{value!r} is not of the form key=value, such as eta=1", param, ctx)
        return found


class Several(click.ParamType):
    """Values of one kind, separated by commas."""

    def __init__(self, kind: type, name: str, low: float = -math.inf, high: float = math.inf, most: int = 10_001):
        self.kind, self.name, self.low, self.high, self.most = kind, name, low, high, most

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        letter = LETTERS.get(self.name, "N")
        return "NAME,.." if self.kind is str else f"{letter},{letter},.."

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return value
        parts = [part.strip() for part in value.split(",")]
        if len(parts) > self.most:
            self.fail(f"{len(parts)} values are given, at most {self.most} are allowed", param, ctx)
        return tuple(self.one(part, param, ctx) for part in parts)

    def one(self, part: str, param: Parameter, ctx: Context) -> Any:
        """One of the values."""
        try:
            found = self.kind(part)
        except ValueError:
            self.fail(f"{part!r} in the list is not {self.name}", param, ctx)
        if self.kind is not str and not self.low <= found <= self.high:
            self.fail(f"{part} in the list is outside {self.low:g} .. {self.high:g}", param, ctx)
        if found == "":
            self.fail("a value in the list is empty", param, ctx)
        return found


class Share(click.ParamType):
    """A share, such as 1% or 0.01, above 0 and at most 1."""

    name = "a share"

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "SHARE"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> float:
        try:
            found = float(value[:-1]) / 100 if isinstance(value, str) and value.endswith("%") else float(value)
        except ValueError:
            self.fail(f"{value!r} is not a share such as 1% or 0.01", param, ctx)
        if not 0 < found <= 1:
            self.fail(f"{value} is not above 0 and at most 1, or 100%", param, ctx)
        return found


class ScaleOrSearch(click.ParamType):
    """A guidance scale; `auto`, or several scales, of which measurement chooses one."""

    name = "a guidance scale"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> float | str | tuple[float, ...]:
        if value == "auto" or not isinstance(value, str):
            return value
        try:
            found = [float(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not a number, several with commas between them, or auto", param, ctx)
        return tuple(found) if len(found) > 1 else found[0]


class Ranges(Several):
    """Whole numbers; `2-5` means 2, 3, 4, 5."""

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return value
        found: list[Any] = []
        for part in map(str.strip, value.split(",")):
            found.extend(self.some(part, param, ctx))
            if len(found) > self.most:
                self.fail(f"more than {self.most} values are given", param, ctx)
        return tuple(found)

    def some(self, part: str, param: Parameter, ctx: Context) -> Sequence[Any]:
        """What one part of the list stands for."""
        first, dash, last = part.partition("-")
        if not (dash and first):
            return [self.one(part, param, ctx)]
        low = self.one(first, param, ctx)
        high = self.one(last, param, ctx) if last else -1
        if not low <= high < low + self.most:
            self.fail(f"{part} is not a range such as 2-5", param, ctx)
        return range(low, high + 1)


class LabelList(Ranges):
    """Class labels, `none` for no condition."""

    def some(self, part: str, param: Parameter, ctx: Context) -> Sequence[int | None]:
        return [None] if part.lower() == "none" else super().some(part, param, ctx)


class CountList(Ranges):
    """Numbers of steps, each once."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__(int, "a number of steps", low, high, most=1000)

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[int, ...]:
        return tuple(dict.fromkeys(super().convert(value, param, ctx)))


class Seeds(Ranges):
    """Different seeds."""

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[int, ...]:
        found = super().convert(value, param, ctx)
        if len(set(found)) < len(found):
            twice = next(seed for i, seed in enumerate(found) if seed in found[:i])
            self.fail(f"seed {twice} is given twice", param, ctx)
        return found


class SeedOrSeeds(click.ParamType):
    """The seed of the first image, or one for each image, such as 3,1,4 or 0-9; the same may come again."""

    name = "seeds"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> int | tuple[int, ...]:
        found = list(_SEED_LIST.convert(str(value), param, ctx))  # a number, of a configuration file
        return tuple(found) if len(found) > 1 else found[0]


class SeedList(Ranges):
    """Seeds, of which the same may come again."""

    def one(self, part: str, param: Parameter, ctx: Context) -> int:
        whole = part.removeprefix("-").isdecimal()
        if whole and (len(part) > 20 or not self.low <= int(part) <= self.high):
            self.fail(f"{part[:20]} is not in the range 0<=x<=2^64-1", param, ctx)
        return super().one(part, param, ctx)


class Strategies(Several):
    """Samplers, each with options after colons and a grid after @: `ddim,dpmpp-3m:curvature=exact,unipc-3@karras`.

    Each becomes (sampler, options, grid or None).
    """

    def __init__(self) -> None:
        super().__init__(str, "a sampler", most=12)

    def one(self, part: str, param: Parameter, ctx: Context) -> tuple[str, dict[str, Any], str | None]:
        words, at, grid = part.partition("@")
        name, *rest = words.split(":")
        pairs = [_pair(word) for word in rest]
        if not name or None in pairs or (at and not grid):
            self.fail(f"{part!r} is not a sampler such as unipc-3, ddim:eta=0.5 or dpmpp-2m@karras", param, ctx)
        return name, mapping([pair for pair in pairs if pair], name), grid or None

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[Any, ...]:
        found = super().convert(value, param, ctx)
        twice = [one for i, one in enumerate(found) if one in found[:i]]
        if twice:
            self.fail(f"{twice[0][0]} is given twice in {value!r}", param, ctx)
        return found


class BatchSize(click.ParamType):
    """1 to 1024, or `auto`."""

    name = "n|auto"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> int | str:
        if value == "auto":
            return value
        try:
            found = int(value)
        except (TypeError, ValueError):
            found = 0
        if not 1 <= found <= 1024:
            self.fail(f"{value!r} is neither auto nor a whole number in the range 1<=x<=1024", param, ctx)
        return found


def label(text: str) -> int | None:
    """One class label."""
    found = LABELS.convert(text, None, None)
    if len(found) != 1:
        LABELS.fail(f"{text!r} names {len(found)} labels; give one")
    return found[0]


class Span(click.ParamType):
    """`low,high`; without a high end there is none, and `,high` begins at 0."""

    name = "x[,x]"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[float, float]:
        if not isinstance(value, str):
            return value
        low, _, high = value.partition(",")
        try:
            return float(low) if low.strip() else 0.0, float(high) if high.strip() else math.inf
        except ValueError:
            self.fail(f"{value!r} is not a number, or two such as 0.2,5", param, ctx)


class PlanFile(click.Path):
    """A plan that `fewstep plan --output` wrote."""

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        return fs.Plan.load(value) if isinstance(value, str) else value


class ScaledFile(click.ParamType):
    """A file and how much of it, `style.safetensors:0.8`; without a number all of it. It becomes (path, scale)."""

    name = "file[:scale]"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> tuple[str, float]:
        if not isinstance(value, str):
            return value
        path, colon, scale = value.rpartition(":")
        if not colon or Path(value).exists():
            return value, 1.0
        try:
            return path, float(scale)
        except ValueError:
            return value, 1.0


class ScheduleOfWeights(Several):
    """Guidance by row, `1,3,5,2`, or from pure noise to clean data, `linear:1,7.5` or `cosine:1,7.5`.

    It becomes a `GuidanceSchedule`.
    """

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        if not isinstance(value, str):
            return value
        kind, colon, rest = value.partition(":")
        weights = super().convert(rest if colon else value, param, ctx)
        shapes = {"linear": fs.GuidanceSchedule.linear, "cosine": fs.GuidanceSchedule.cosine}
        if not colon:
            return fs.GuidanceSchedule.rows(weights)
        if kind not in shapes or len(weights) != 2:
            self.fail(
                f"{value!r} is neither weights by row, such as 1,3,5,2, nor linear:NOISY,CLEAN or cosine:NOISY,CLEAN, "
                "such as linear:1,7.5",
                param,
                ctx,
            )
        return shapes[kind](*weights)


class ScheduleName(click.ParamType):
    """A noise schedule, its parameters after a colon: `flow:shift=3`, `linear:beta_end=0.03,zero_snr=true`."""

    name = "schedule"

    def convert(self, value: Any, param: Parameter, ctx: Context) -> Any:
        if not isinstance(value, str):
            return value
        kind, _, rest = value.partition(":")
        known = ("linear", "scaled_linear", "cosine", "edm", "flow")
        if kind not in known:
            raise unknown_name("noise schedule", kind, known)
        params: dict[str, Any] = {}
        for part in rest.split(",") if rest else ():
            found = _pair(part)
            if found is None or not isinstance(found[1], int | float) or not math.isfinite(found[1]):
                self.fail(f"{part!r} is not a parameter such as shift=3, a number or true or false", param, ctx)
            params[found[0]] = found[1]
        return fs.schedules.from_spec({"kind": kind, **params})


def mapping(pairs: Sequence[tuple[str, Any]], option: str) -> dict[str, Any]:
    """The pairs of an option that may be repeated; a key given twice is refused."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise click.UsageError(f"{option} {key} is given twice, as {found[key]!r} and {value!r}")
        found[key] = value
    return found


NUMBERS = Several(float, "a number")
LABELS = LabelList(int, "a label", 0, 10**6, most=10_000)
SEEDS = Seeds(int, "a seed", 0, 2**64 - 1, most=1_000_000)
SEED = SeedOrSeeds()
_SEED_LIST = SeedList(int, "a seed", 0, 2**64 - 1, most=10_000)
WEIGHTS = ScheduleOfWeights(float, "a weight", -1e6, 1e6)
