"""How a condition steers, as data: a method of guidance by its name, the scale, and the method's options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fewstep.core.errors import InvalidInput, unknown_name
from fewstep.pipeline.fields import MOST_OPTIONS, Fields, shown

EVERYWHERE = (0.0, math.inf)


class Option(NamedTuple):
    """An option of a method: where the caller gives none, and what makes a value that is given the one that is kept."""

    default: Any
    read: Callable[[str, Any], Any]


class Method(NamedTuple):
    """A method of guidance.

    Attributes:
        options: by name.
        scale: where the caller gives none; None is the model's own usual one.
        idle: the scale at which nothing is guided, and an image costs one evaluation.
    """

    options: Mapping[str, Option]
    scale: float | None = None
    idle: float = 1.0


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInput(f"the guidance option {name} is a finite number, got {shown(value)}")
    return float(value)


def _number_or_none(name: str, value: Any) -> float | None:
    return None if value is None else _number(name, value)


def _whole(name: str, value: Any) -> int:
    if type(value) is not int or value < 0:
        raise InvalidInput(f"the guidance option {name} is a whole number from 0, got {shown(value)}")
    return value


def _names(name: str, value: Any) -> list[str]:
    words = value.split(",") if isinstance(value, str) else value
    if (
        not isinstance(words, list | tuple)
        or not 1 <= len(words) <= MOST_OPTIONS
        or not all(isinstance(word, str) and word.strip() for word in words)
    ):
        raise InvalidInput(
            f"the guidance option {name} is a name, several with commas between, or a list of at most {MOST_OPTIONS}, "
            f"got {shown(value)}"
        )
    return [word.strip() for word in words]


METHODS: Mapping[str, Method] = {
    "cfg": Method({}),
    "apg": Method(
        {"eta": Option(0.0, _number), "norm_limit": Option(None, _number_or_none), "momentum": Option(0.0, _number)}
    ),
    "cfg++": Method({}, scale=0.6, idle=0.0),
    "cfg-zero*": Method({"zero_init": Option(1, _whole)}),
    "pag": Method({"scale": Option(3.0, _number), "layers": Option("mid", _names)}),
    "autoguidance": Method({}, scale=2.0),
}
"""What `guidance_method` may be; the classes are `Guided`, `APG`, `CFGPlusPlus`, `CFGZero`, `PAG` and `AutoGuided`."""
_OTHER_SPELLINGS = {"cfg-zero": "cfg-zero*"}


def method_named(name: Any) -> str:
    """The name in `METHODS` for one that a caller gave; "cfg-zero" is for shells, to which a star means files."""
    found = _OTHER_SPELLINGS.get(name, name) if isinstance(name, str) else name
    if not isinstance(found, str) or found not in METHODS:
        raise unknown_name("guidance method", str(name), METHODS)
    return found


def usual_scale(method: str, own: float) -> float:
    """The scale where the caller gives none: the method's usual one, else the model's `own`."""
    found = METHODS[method_named(method)].scale
    return own if found is None else found


@dataclass(frozen=True)
class Guidance:
    """How the condition steers.

    Attributes:
        scale: of the method; 1 is the conditional model alone, at half the cost, but for "cfg++", whose scale lies in
            [0, 1].
        negative: the label in the unconditional place; None is the null class.
        interval: (low, high) in sigma / alpha where guidance acts.
        rescale: in [0, 1], how far the guided output is scaled back to the conditional one's standard deviation, for
            "cfg".
        clip: whether the estimate of the data is clipped to the data's range at each evaluation.
        method: a name in `METHODS`; `options`: all of the method's.
        weak: digest of the weaker model, for "autoguidance".

    Raises:
        InvalidInput: for an unknown name, and for values that cannot be used, or not together.
    """

    scale: float = 1.0
    negative: int | None = None
    interval: tuple[float, float] = EVERYWHERE
    rescale: float = 0.0
    clip: bool = False
    method: str = "cfg"
    options: Mapping[str, Any] = field(default_factory=dict)
    weak: str | None = None

    def __post_init__(self) -> None:
        for name in ("scale", "rescale"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                what = "guidance" if name == "scale" else "rescale"
                raise InvalidInput(f"{what} must be a finite number, got {value!r}: 1 is the conditional model alone")
            object.__setattr__(self, name, float(value))
        if not 0 <= self.rescale <= 1:
            raise InvalidInput(f"rescale must lie in [0, 1], got {self.rescale:g}: 0 is none")
        low, high = self.interval
        if not 0 <= low < high:
            raise InvalidInput(f"interval needs 0 <= low < high, in sigma / alpha, got {self.interval!r}")
        object.__setattr__(self, "interval", (float(low), float(high)))
        object.__setattr__(self, "method", method_named(self.method))
        object.__setattr__(self, "options", _options(self.method, self.options))
        if self.rescale and self.method != "cfg":
            raise InvalidInput(f"rescale belongs to the guidance method cfg, got {self.rescale:g} with {self.method}")
        if self.weak is None and self.method == "autoguidance":
            raise InvalidInput("autoguidance moves away from a weaker model: give weak=, a loaded pipeline or its path")
        if self.weak is not None and self.method != "autoguidance":
            raise InvalidInput(
                f"weak is the weaker model of autoguidance, and the guidance method is {self.method}: leave it out, or "
                'use guidance_method="autoguidance"'
            )

    @property
    def uses_negative(self) -> bool:
        """Whether the negative condition acts, where the network takes one."""
        return self.method != "autoguidance" and (self.method == "cfg++" or self.scale != 1)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; an interval without an upper end has null there, and "cfg" goes without saying."""
        low, high = self.interval
        said = {**vars(self), "interval": [low, None if high == math.inf else high], "options": dict(self.options)}
        return said if self.method != "cfg" else {name: said[name] for name in said if name not in _OF_METHOD}

    @staticmethod
    def from_json(value: Any) -> Guidance:
        """The inverse of `to_json`. Raises `InvalidInput`, naming the field."""
        whole = {**_OF_METHOD, **value} if isinstance(value, dict) else value
        fields = Fields(whole, "the recipe's guidance", Guidance.__dataclass_fields__)
        ends = whole["interval"]
        if not isinstance(ends, list) or len(ends) != 2:
            raise fields.refuse("interval", "a list of two numbers, the second may be null")
        bounds = Fields(dict(zip(("low", "high"), ends, strict=True)), "the recipe's interval", ("low", "high"))
        high = bounds.optional("high", bounds.number, 0)
        return Guidance(
            scale=fields.number("scale", -1e6, 1e6),
            negative=fields.optional("negative", fields.whole, 0, 10**6),
            interval=(bounds.number("low", 0), math.inf if high is None else high),
            rescale=fields.number("rescale", 0, 1),
            clip=fields.flag("clip"),
            method=fields.text("method"),
            options=fields.options("options"),
            weak=fields.optional("weak", fields.digest),
        )


_OF_METHOD: Mapping[str, Any] = {"method": "cfg", "options": {}, "weak": None}


def _options(method: str, given: Any) -> dict[str, Any]:
    """All options of a method, by what was given and by default."""
    if not isinstance(given, Mapping):
        raise InvalidInput(f"guidance_options is a mapping from names to values, got {shown(given)}")
    known = METHODS[method].options
    for name in given:
        if not known:
            raise InvalidInput(f"the guidance method {method} has no options, got {shown(name)}: leave it out")
        if name not in known:
            raise unknown_name(f"option of the guidance method {method}", str(name), known)
    return {name: option.read(name, given.get(name, option.default)) for name, option in known.items()}
