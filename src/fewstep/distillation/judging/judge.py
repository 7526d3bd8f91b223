"""What the pictures of a student and of its rivals are judged by: the teacher's own.

Two figures. The error of a picture is its distance to what the teacher makes of the same noise in all of its steps, and
that of a plan is the typical one (see `fewstep.measure.distance`). A plan that draws noise between its rows makes other
pictures, of which this error says nothing. The distance is that of all pictures together to as many of the teacher's,
of other noise: Frechet's on features of which there are ten times fewer than pictures, else the kernel distance. It
judges every plan. No loss sees these features. Where a student learned from real pictures, its distance to these is
measured too, and the teacher's own beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewstep.benchmark.yardstick import FRECHET_WIDTHS, signed
from fewstep.core.plan import Plan
from fewstep.denoise.convert import Network
from fewstep.distillation.judging.reference import Interval, Reference
from fewstep.distillation.pictures.pairs import Pairs
from fewstep.distillation.pictures.real import Real
from fewstep.distillation.pictures.teacher import noise_of, run, solved
from fewstep.measure.distance import over_images, overall, squares
from fewstep.measure.features import Features
from fewstep.measure.figure import BOOTSTRAP, Bootstrap, Figure
from fewstep.measure.saturation import saturation
from fewstep.measure.spread import diversity
from fewstep.measure.summary import Summary
from fewstep.pipeline.stages import decode

Draw = Callable[[Sequence[int]], Tensor]
"""States (B, c, h, w) on the host, of some pairs by their numbers from 0."""
FEW = Bootstrap(20)
"""Where no interval is asked for."""
MARGIN = 0.02
"""A pixel is at an end of the range within so much of it: pictures that differ by less than is seen count alike."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """What drew some pictures, as far as it is judged.

    Attributes:
        errors: (n,) mean squared ones, infinite for a picture that is not finite.
        features: (m, d) of those that are finite; `saturation`: the mean share of their pixels at an end of the range.
    """

    errors: Tensor
    features: Tensor
    saturation: float

    @property
    def lost(self) -> int:
        """How many are not finite."""
        return len(self.errors) - len(self.features)


class Judge:
    """What pictures of the noise of some held-out pairs are judged by.

    Args:
        held_out: the pairs; `reference`: the teacher's pictures of other noise, as many.
        features: on which distances are measured.
        batch: pictures that are drawn at once.
        widths: so many pictures for each number of the features make a Frechet distance; fewer a kernel distance.
        real: pictures that distances are measured to as well, of which it takes as many as are held out.

    Attributes:
        reference: the teacher's pictures; `data`: the real ones, None where there are none.
    """

    def __init__(
        self,
        held_out: Pairs,
        reference: Pairs,
        features: Features,
        batch: int = 64,
        widths: int = FRECHET_WIDTHS,
        real: Real | None = None,
    ) -> None:
        self.held_out, self.features, self.batch = held_out, features, batch
        count, least = held_out.count, widths * features.width
        drawn = (self.shown(reference.states(part)) for part in self.parts(reference.count))
        self.reference = Reference.of(drawn, features, least, count)
        self.data = None if real is None else Reference.of(real.shown(count, batch), features, least, count)

    @property
    def measure(self) -> str:
        """The distance, and on what, in words."""
        return self.reference.measure

    def pairs(self, plan: Plan) -> bool:
        """Whether a plan is to make the teacher's picture of the same noise, as where neither draws more noise."""
        return not (plan.stochastic or self.held_out.teacher.order.plan.stochastic)

    def parts(self, count: int) -> Iterator[range]:
        """The numbers 0 .. count - 1, some at a time."""
        yield from (range(i, min(i + self.batch, count)) for i in range(0, count, self.batch))

    def look(self, draw: Draw) -> Pictures:
        """Draw all held-out pairs."""
        errors, features, shares = [], [], []
        for part in self.parts(self.held_out.count):
            states = draw(part)
            errors.append(squares(states, self.held_out.states(part)))
            states = states[states.isfinite().flatten(1).all(dim=1)]
            if not len(states):
                continue
            pictures = self.shown(states)
            with torch.no_grad():
                features.append(self.features(pictures).flatten(1).cpu())
            shares.append(saturation(pictures, margin=MARGIN).share)
        width = self.features.width
        seen = torch.cat(features) if features else torch.empty(0, width)
        return Pictures(torch.cat(errors), seen, float(torch.cat(shares).mean()) if shares else 0.0)

    def shown(self, states: Tensor) -> Tensor:
        """Pictures (B, C, H, W) in [-1, 1] of states."""
        model = self.held_out.teacher.pipe.model
        place = torch.device(model.device)
        pictures = decode(model, states.to(place), self.held_out.teacher.order.drawing)
        return signed(pictures, model.codec.value_range)

    def distance(self, pictures: Pictures, bootstrap: Bootstrap = BOOTSTRAP) -> Figure | None:
        """The distance to the teacher's; None where a picture is lost, as figures of unlike numbers do not compare."""
        return self._to(self.reference, pictures, bootstrap)

    def distance_to_data(self, pictures: Pictures, bootstrap: Bootstrap = BOOTSTRAP) -> Figure | None:
        """The distance to real pictures; None where there are none, or a picture is lost."""
        return None if self.data is None else self._to(self.data, pictures, bootstrap)

    def _to(self, reference: Reference, pictures: Pictures, bootstrap: Bootstrap) -> Figure | None:
        return None if pictures.lost else reference.distance(self.summed(pictures.features), bootstrap)

    def diversity(self, pictures: Pictures) -> float:
        """The mean distance of the features of two pictures; not a number of fewer than 2."""
        if len(pictures.features) < 2:
            return float("nan")
        return diversity(self.summed(pictures.features), bootstrap=FEW).value

    def summed(self, features: Tensor) -> Summary:
        """A summary of features (n, d), all of which it keeps."""
        found = Summary(self.features, keep=max(2, self.held_out.count))
        found.update_features(features)
        return found


def typical(errors: Tensor) -> Interval:
    """The error of the typical picture of mean squared ones (n,)."""
    return interval(overall(errors, "psnr"), again(errors))


def ratio(errors: Tensor, student: Tensor) -> Interval:
    """How many times that of the student an error is; the pictures of both are the same."""
    return interval(overall(errors, "psnr") / overall(student, "psnr"), again(errors) / again(student))


def again(errors: Tensor) -> Tensor:
    """(replicates,) the typical error in each sample of the bootstrap; infinite where that has a lost picture."""
    lost, weights = errors.isinf(), BOOTSTRAP.weights(len(errors))
    finite = weights @ over_images(errors.masked_fill(lost, 1.0)[:, None], "psnr").log()
    return finite.exp().masked_fill((weights[:, lost] > 0).any(dim=1), torch.inf)


def interval(value: float, replicates: Tensor) -> Interval:
    """With the middle 95% of some replicates, none of which is interpolated, as some may be infinite."""
    low, high = np.quantile(
        replicates.nan_to_num(nan=torch.inf, posinf=torch.inf).numpy(), [0.025, 0.975], method="nearest"
    )
    return Interval(value, float(low), float(high))


def by_student(network: Network, plan: Plan, held_out: Pairs) -> Draw:
    """Draws held-out pairs with a student."""

    def draw(part: Sequence[int]) -> Tensor:
        numbers = [held_out.first + number for number in part]
        denoiser = network.given(held_out.conditions.of(numbers).positive)
        noise = noise_of(numbers, held_out.shape, held_out.teacher.pipe.model.device)
        return run(plan, denoiser, noise, numbers)

    return draw


def by_teacher(plan: Plan, held_out: Pairs) -> Draw:
    """Draws held-out pairs with the teacher's network, by another plan."""
    return lambda part: solved(
        held_out.teacher, held_out.conditions, [held_out.first + number for number in part], plan
    )
