"""How a condition steers, as data: a method of guidance by its name, the scale, and the method's options."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.methods import METHODS, method_named, method_of
from fewstep.denoise.scale import EVERYWHERE, GuidanceSchedule, Weight
from fewstep.pipeline.fields import Fields, shown

Scales = float | tuple[float, ...]
"""One for all rows of a plan, or one for each."""
GivenScale = float | Sequence[float] | GuidanceSchedule | Callable[[float], float] | None
"""What callers may give: None for the usual one; a schedule, or any function of sigma / alpha, fits any plan."""
Threshold = float | tuple[float, float]
"""What callers may give for dynamic thresholding: the percentile; or it and the maximum."""
MOST_WEIGHTS = 100_000


def usual_scale(method: str, own: float) -> float:
    """The scale where the caller gives none: the method's usual one, else the model's `own`."""
    found = METHODS[method_named(method)].usual_scale
    return own if found is None else found


def given_scale(given: GivenScale, plan: Plan | None, method: str, own: float) -> Scales:
    """The scale that a caller gave, as data: a schedule becomes its weights in the rows of the plan.

    Raises:
        InvalidInput: there are weights by row, and no plan; or it has another number of rows.
    """
    if given is None:
        return usual_scale(method, own)
    plain: Any = given.tolist() if hasattr(given, "tolist") else given  # type: ignore[union-attr]
    if isinstance(plain, int | float):
        return plain
    if isinstance(plain, GuidanceSchedule):
        schedule = plain
    elif callable(plain):
        schedule = GuidanceSchedule(cast(Callable[[float], float], plain))
    elif isinstance(plain, Sequence) and not isinstance(plain, str):
        schedule = GuidanceSchedule.rows(plain)
    else:
        raise InvalidInput(
            "guidance is a number, one for each row of the plan, or a GuidanceSchedule or function of sigma / alpha, "
            f"got {shown(given)}"
        )
    if plan is None:
        raise InvalidInput("guidance by row or by a schedule is that of a plan: give the plan, or a number")
    return tuple(schedule.over(plan))


@dataclass(frozen=True)
class Guidance:
    """How the condition steers.

    Attributes:
        scale: of the method; 1 is the conditional model alone, at half the cost, but for "cfg++", whose scale lies in
            [0, 1]. A tuple is one for each row of the plan.
        negative: the label in the unconditional place; None is the null class.
        interval: (low, high) in sigma / alpha where guidance acts.
        rescale: in [0, 1], how far the guided output is scaled back to the conditional one's standard deviation, for
            "cfg".
        clip: whether the estimate of the data is clipped to the data's range at each evaluation.
        threshold: (percentile, maximum) by which it is clipped dynamically instead, see `fewstep.dynamic_threshold`.
        method: a name in `METHODS`; `options`: all of the method's.
        weak: digest of the weaker model, for "autoguidance".

    Raises:
        InvalidInput: for an unknown name, and for values that cannot be used, or not together.
    """

    scale: Scales = 1.0
    negative: int | None = None
    interval: tuple[float, float] = EVERYWHERE
    rescale: float = 0.0
    clip: bool = False
    threshold: tuple[float, float] | None = None
    method: str = "cfg"
    options: Mapping[str, Any] = field(default_factory=dict)
    weak: str | None = None

    def __post_init__(self) -> None:
        by_row = isinstance(self.scale, tuple)
        weights = [_finite("guidance", w) for w in self.weights[: MOST_WEIGHTS + 1]]
        if not 1 <= len(weights) <= MOST_WEIGHTS:
            raise InvalidInput(f"guidance by row has 1 to {MOST_WEIGHTS:,} weights, got {len(self.weights):,}")
        object.__setattr__(self, "scale", tuple(weights) if by_row else weights[0])
        object.__setattr__(self, "rescale", _finite("rescale", self.rescale))
        if not 0 <= self.rescale <= 1:
            raise InvalidInput(f"rescale must lie in [0, 1], got {self.rescale:g}: 0 is none")
        low, high = self.interval
        if not 0 <= low < high:
            raise InvalidInput(f"interval needs 0 <= low < high, in sigma / alpha, got {self.interval!r}")
        object.__setattr__(self, "interval", (float(low), float(high)))
        object.__setattr__(self, "threshold", _threshold(self.threshold))
        if self.clip and self.threshold is not None:
            raise InvalidInput("clip and dynamic_threshold both bring the data into its range: use one of them")
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

    @staticmethod
    def given(
        scale: GivenScale,
        plan: Plan | None,
        own: float,
        *,
        threshold: Threshold | None = None,
        options: Mapping[str, Any] | None = None,
        weak: Any = None,
        **more: Any,
    ) -> Guidance:
        """What a caller gave, as data.

        Args:
            scale: see `given_scale`, also for `plan` and `own`.
            threshold: the percentile alone has no maximum.
            weak: the weaker pipeline.
            more: other attributes as they are.
        """
        return Guidance(
            given_scale(scale, plan, more.get("method", "cfg"), own),
            threshold=(threshold, math.inf) if isinstance(threshold, int | float) else threshold,
            options=options or {},
            weak=None if weak is None else weak.digest,
            **more,
        )

    @property
    def weights(self) -> tuple[float, ...]:
        """The scale of each row, or the one of all of them."""
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)

    @property
    def weight(self) -> Weight:
        """The scale as denoisers take it."""
        return GuidanceSchedule.rows(self.scale) if isinstance(self.scale, tuple) else self.scale

    @property
    def acts(self) -> bool:
        """Whether any row is guided, by the method's scale or by another of its own."""
        return self.method == "pag" or any(w != METHODS[self.method].idle for w in self.weights)

    @property
    def uses_negative(self) -> bool:
        """Whether the negative condition acts, where the network takes one."""
        return self.method != "autoguidance" and (self.method == "cfg++" or any(w != 1 for w in self.weights))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; what has no upper end has null there, and "cfg" and no threshold go without saying."""
        said = {**vars(self), "interval": _open(self.interval), "options": dict(self.options)}
        said["scale"] = list(self.scale) if isinstance(self.scale, tuple) else self.scale
        said["threshold"] = None if self.threshold is None else _open(self.threshold)
        silent = {"threshold"} if self.threshold is None else set()
        silent |= set(_OF_METHOD) if self.method == "cfg" else set()
        return {name: value for name, value in said.items() if name not in silent}

    @staticmethod
    def from_json(value: Any) -> Guidance:
        """The inverse of `to_json`. Raises `InvalidInput`, naming the field."""
        whole = {**_OF_METHOD, "threshold": None, **value} if isinstance(value, dict) else value
        fields = Fields(whole, "the recipe's guidance", Guidance.__dataclass_fields__)
        by_row = isinstance(whole["scale"], list)
        scale = tuple(fields.numbers("scale", 1, MOST_WEIGHTS)) if by_row else fields.number("scale", -1e6, 1e6)
        return Guidance(
            scale=scale,
            negative=fields.optional("negative", fields.whole, 0, 10**6),
            interval=_ends(fields, "interval"),
            rescale=fields.number("rescale", 0, 1),
            clip=fields.flag("clip"),
            threshold=None if whole["threshold"] is None else _ends(fields, "threshold"),
            method=fields.text("method"),
            options=fields.options("options"),
            weak=fields.optional("weak", fields.digest),
        )


_OF_METHOD: Mapping[str, Any] = {"method": "cfg", "options": {}, "weak": None}


def _finite(what: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InvalidInput(f"{what} must be a finite number, got {shown(value)}: 1 is the conditional model alone")
    return float(value)


def _threshold(given: Any) -> tuple[float, float] | None:
    if given is None:
        return None
    pair = isinstance(given, list | tuple) and len(given) == 2
    numbers = pair and all(isinstance(value, int | float) and not isinstance(value, bool) for value in given)
    if not numbers or not (0 < given[0] <= 1 <= given[1]):
        raise InvalidInput(
            "dynamic_threshold is a percentile above 0 and up to 1, or one and a maximum from 1, such as 0.995 or "
            f"(0.995, 1.5), got {shown(given)}"
        )
    return float(given[0]), float(given[1])


def _open(ends: tuple[float, float]) -> list[float | None]:
    """Two numbers, infinity as null."""
    low, high = ends
    return [low, None if high == math.inf else high]


def _ends(fields: Fields, name: str) -> tuple[float, float]:
    """The inverse of `_open`, for a field."""
    ends = fields.value[name]
    if not isinstance(ends, list) or len(ends) != 2:
        raise fields.refuse(name, "a list of two numbers, the second may be null")
    bounds = Fields(dict(zip(("low", "high"), ends, strict=True)), f"the recipe's {name}", ("low", "high"))
    high = bounds.optional("high", bounds.number, 0)
    return bounds.number("low", 0), math.inf if high is None else high


def _options(method: str, given: Any) -> dict[str, Any]:
    """All options of a method, by what was given and by default, as JSON has them."""
    if method == "cfg" and isinstance(given, Mapping) and given:
        raise InvalidInput(f"the guidance method cfg has no options, got {shown(next(iter(given)))}: leave it out")
    options = {} if method == "cfg" and given == {} else asdict(method_of(method, given))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
