"""How the condition steers: a method by its name, the scale, and where it acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, field_validator, model_validator

from fewstep.core.errors import InvalidInput
from fewstep.denoise.method import NEGATIVE, Method
from fewstep.denoise.methods import method_of
from fewstep.denoise.scale import Moment
from fewstep.drawing.value import Digest, Options, Unbounded, Value, several

MOST_WEIGHTS = 100_000

Weights = Annotated[tuple[float, ...], BeforeValidator(several), Field(min_length=1, max_length=MOST_WEIGHTS)]
Interval = Annotated[tuple[float, Unbounded], BeforeValidator(several)]


class Guidance(Value):
    """A method with its scale and options: `Guidance(9, method="apg", norm_limit=7.5)`.

    Names that are not fields are options of the method. A scale of 1 is the conditional model alone, at half the cost;
    the scale of "cfg++" lies in [0, 1]. Several scales are one for each row of the plan.

    A guidance-distilled network, such as FLUX.1-dev, is told the scale and has no negative branch. `true_cfg` gives it
    one, at twice the cost, with a scale of its own, at which the method then acts.
    """

    called: ClassVar[str] = "the guidance"

    scale: float | Weights = Field(description="Guidance scale; 1 is none, at half the cost.")
    method: str = Field(default="cfg", description="Guidance method: cfg, apg, cfg++, cfg-zero, pag or autoguidance.")
    options: Options = Field(default=Options(), description="Options of the method, such as norm_limit=2.5.")
    interval: Interval = Field(
        default=(0.0, float("inf")), description="Guide only where sigma / alpha is between these."
    )
    true_cfg: float | None = Field(
        default=None,
        description="Guidance scale of a negative branch beside the scale that a distilled network is told.",
    )
    weaker: Digest | None = Field(default=None, description="Digest of the weaker model, for autoguidance.")

    def __init__(self, scale: Any = None, **fields: Any):
        known = {name: fields[name] for name in fields if name in Guidance.model_fields}
        options = {name: value for name, value in fields.items() if name not in known}
        if options:
            known["options"] = {**known.get("options", {}), **options}
        super().__init__(scale=scale, **known)

    @field_validator("interval")
    @classmethod
    def _in_order(cls, interval: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= interval[0] < interval[1]:
            raise InvalidInput(f"it needs 0 <= low < high, in sigma / alpha, got {interval!r}")
        return interval

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, fields: Any) -> Any:
        """With every option of the method, given or by default, and the method's own name."""
        if not isinstance(fields, Mapping):
            return fields
        method = method_of(fields.get("method", "cfg"), fields.get("options", {}))
        return {**fields, "method": method.name, "options": asdict(method)}

    @model_validator(mode="after")
    def _check(self) -> Guidance:
        if (self.weaker is not None) != (self.method == "autoguidance"):
            if self.weaker is None:
                raise InvalidInput("autoguidance moves away from a weaker model: give weak=, a pipeline or its path")
            raise InvalidInput(
                f"weak is the weaker model of autoguidance, and the guidance method is {self.method}: leave it out, or "
                'use the method "autoguidance"'
            )
        return self

    @cached_property
    def how(self) -> Method:
        """The method with its options."""
        return method_of(self.method, self.options)

    @property
    def weights(self) -> tuple[float, ...]:
        """The scale of each row, or the one of all of them."""
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)

    @property
    def pull(self) -> float | tuple[float, ...]:
        """The scale at which the method acts on two conditions."""
        return self.scale if self.true_cfg is None else self.true_cfg

    @property
    def uses_negative(self) -> bool:
        """Whether the negative condition acts, where the network takes one."""
        somewhere = Moment(None, 1.0)
        weights = self.pull if isinstance(self.pull, tuple) else (self.pull,)
        return any(NEGATIVE in self.how.branches(somewhere, weight) for weight in weights)
