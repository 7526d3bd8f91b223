"""The methods by name, so that what a student's files say of their method can be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewstep.core.errors import InvalidInput
from fewstep.distillation.methods import consistency
from fewstep.distillation.methods.adversarial import Adversarial
from fewstep.distillation.methods.consistency import Consistency
from fewstep.distillation.methods.dmd import DistributionMatching
from fewstep.distillation.methods.endpoint import Endpoint
from fewstep.distillation.methods.guidance import GuidanceInput
from fewstep.distillation.methods.lcm import LatentConsistency
from fewstep.distillation.methods.meanflow import MeanFlow
from fewstep.distillation.methods.phased import Phased
from fewstep.distillation.methods.policy import Policy
from fewstep.distillation.methods.progressive import Progressive
from fewstep.distillation.methods.reflow import Reflow
from fewstep.distillation.methods.regression import Regression
from fewstep.distillation.methods.scm import ContinuousConsistency
from fewstep.training import Method

METHODS = {
    method.name: method
    for method in (
        Regression,
        Endpoint,
        Phased,
        Progressive,
        GuidanceInput,
        Consistency,
        LatentConsistency,
        Reflow,
        DistributionMatching,
        Adversarial,
        Policy,
        ContinuousConsistency,
        MeanFlow,
    )
}
"""The methods by name."""
PRESETS = {Consistency.name: consistency.PRESETS}
"""Options that go together, by method and name."""


def kind_of(facts: Mapping[str, Any]) -> Any:
    """The class of the method that a student's files name; None for one that is not of `METHODS`."""
    return METHODS.get(str(dict(facts.get("method", {})).get("name", "")))


def stated(facts: Mapping[str, Any]) -> Method | None:
    """The same with its settings. Raises `InvalidInput` for settings that the method has not."""
    kind, own = kind_of(facts), dict(facts.get("method", {}))
    if kind is None:
        return None
    own.pop("name")
    try:
        return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in own.items()})
    except TypeError as error:
        raise InvalidInput(f"the student's files name settings of {kind.name} that it has not: {error}") from error
