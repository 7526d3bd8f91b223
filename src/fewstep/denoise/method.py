"""What a method of guidance is: two pure functions. It knows neither batches nor networks; drivers do.

    branches(moment, weight) -> which outputs of networks an image needs at this moment
    combine(outputs, weight, state, memory) -> (data, raw, memory)

Outputs are those of networks, F. As x0 is affine in F with the same coefficients in all branches, guiding F guides x0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.scale import GuidanceSchedule, Moment, Weight, column

if TYPE_CHECKING:
    from torch import Tensor

POSITIVE, NEGATIVE, PERTURBED, WEAK = "positive", "negative", "perturbed", "weak"
"""The branches: under the condition; under the negative one; under the condition, with perturbed self-attention; of the
weaker network."""

Outputs: TypeAlias = "Mapping[str, Tensor]"
"""By branch, each (B, ..)."""
Combined: TypeAlias = "tuple[Tensor, Tensor, Any]"
"""The guided output, the one that solvers take the noise from where they tell them apart, and a memory."""


class BatchState(NamedTuple):
    """Where the images of `combine` are.

    Attributes:
        x: the states (B, ..).
        skip, out: of x0 = skip x + out F; numbers, or tensors (B, 1, ..).
        moments, weights: one for all images or one for each.
    """

    x: Tensor
    skip: Any
    out: Any
    moments: Sequence[Moment]
    weights: Sequence[Any]


class Setup(NamedTuple):
    """What images are to be guided with.

    Attributes:
        network: a `fewstep.Network`, or a model, with its `prediction` and `module`.
        weights: one for all images or one for each.
        negative, weaker: whether there is a negative condition, and a weaker network.
        plan: the one that will be run, where it is known.
    """

    network: Any
    weights: Sequence[Weight]
    negative: bool
    weaker: bool = False
    plan: Plan | None = None


@dataclass(frozen=True)
class Method:
    """Base of the methods, whose fields are their options.

    Attributes:
        name: by which callers know it.
        usual_scale: where the caller gives none; None is the model's own usual one.
        idle: the scale at which nothing is guided, and an image costs one evaluation.
        negative: whether a negative condition is "needed", "optional" or "unused".
        splits: whether `raw` is another estimate than `data`.
        remembers: whether `combine` returns a memory for the image's next guided row.
        needs_run: whether the number of the row or an earlier row counts.
        own_scale: whether it guides by a scale of its own too, whatever the weight is.
        perturbs: names of the self-attention layers that its perturbed branch has without their maps.
    """

    name: ClassVar[str] = ""
    usual_scale: ClassVar[float | None] = None
    idle: ClassVar[float] = 1.0
    negative: ClassVar[str] = "needed"
    splits: ClassVar[bool] = False
    # Options may decide these four: then they are set on the object.
    remembers: ClassVar[bool] = False
    needs_run: ClassVar[bool] = False
    own_scale: ClassVar[bool] = False
    perturbs: ClassVar[Sequence[str]] = ()

    def branches(self, at: Moment, weight: float | None) -> tuple[str, ...]:
        """What an image needs; with no branch its output is 0. A weight of None is outside the interval of guidance,
        where an image is the conditional model's.
        """
        return (POSITIVE,) if weight is None or weight == self.idle else (POSITIVE, NEGATIVE)

    def combine(self, outputs: Outputs, weight: Any, at: BatchState, memory: Any) -> Combined:
        """(data, raw, memory) from two outputs or more.

        Args:
            weight: a number, or a tensor (B, 1, ..).
            memory: what the images' last guided rows returned, (B, ..), if any.
        """
        raise NotImplementedError

    def guide(self, outputs: Outputs, at: BatchState, memory: Any) -> Combined:
        """As `combine`, from any number of outputs: one alone is the result, and none are zeros."""
        if len(outputs) > 1:
            return self.combine(outputs, column(at.weights, at.x), at, memory)
        alone = next(iter(outputs.values()), None)
        alone = at.x.new_zeros(at.x.shape) if alone is None else alone
        return alone, alone, memory

    def check(self, setup: Setup) -> None:
        """Raise `InvalidInput` where images cannot be guided so."""
        if not setup.negative and any(w != 1 for w in setup.weights):
            raise InvalidInput(
                "guidance other than 1 needs a negative condition: give negative=, or leave the scale out"
            )
        for w in setup.weights:
            if setup.plan is not None and isinstance(w, GuidanceSchedule):
                w.check(setup.plan)


def dims_of(x: Tensor) -> tuple[int, ...]:
    """All dimensions but the batch."""
    return tuple(range(1, x.ndim))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each image, (B, 1, ..)."""
    return (a * b).sum(dim=dims_of(a), keepdim=True)


_SMALLEST = {"torch.float64": 2.0**-1022, "torch.float16": 2.0**-14}


def squared(x: Tensor) -> Tensor:
    """The squared norm of each image, (B, 1, ..), at least the smallest normal number of the dtype, to divide by."""
    smallest = _SMALLEST.get(str(x.dtype), 2.0**-126)
    return x.square().sum(dim=dims_of(x), keepdim=True).clamp_min(smallest)
