"""Many images as one piece of work: what each is drawn from, which are drawn together, and what identifies the work.

Where all images share their sampler, steps and guidance, they are drawn in batches. The images and the batch size alone
fix these batches, and never what is already there: sums over another batch round differently, so a run that was
interrupted draws the missing batches whole, and gets the same bits. Where images differ, they are drawn in slots, in
which an image is the same whoever shares the batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fewstep.batch.prompts import MAX_ITEMS, PromptLine
from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.drawing import Drawing, merged
from fewstep.drawing.drawing import MAX_SIDE, SEED_LIMIT
from fewstep.drawing.made import MAX_BATCH
from fewstep.drawing.overlay import Overlay
from fewstep.models import Model, preset_for
from fewstep.pipeline.draw import LostImages, draw
from fewstep.pipeline.images import Images
from fewstep.pipeline.order import Order, Run, ordered, overlay_of
from fewstep.pipeline.pipeline import Pipeline
from fewstep.pipeline.slots import draw_in_slots
from fewstep.pipeline.stages import check, check_asked

ROUND = 4
"""Images that go through slots together, as a multiple of the slots; a part that was interrupted is drawn again."""


class Item(NamedTuple):
    """One image: its prompt or label, its negative, its seed, and the index of its order."""

    subject: str | int | None
    negative: str | int | None
    seed: int
    order: int


@dataclass(frozen=True, eq=False)
class Batch:
    """Images to draw, and how.

    Attributes:
        model: the model that draws.
        orders: one for each different way to draw; prompts and seeds are those of the items.
        items: the images, by index.
        size: images that the network sees at once; None finds it by trying.
        scale: enlargement of a pixel in the files.

    Raises:
        InvalidInput: for what the model would refuse in any of the items, before anything is drawn.
    """

    model: Model
    orders: tuple[Order, ...]
    items: tuple[Item, ...]
    size: int | None = None
    scale: int = 1

    @staticmethod
    def of(
        pipe: Pipeline,
        lines: Sequence[PromptLine],
        seeds: Sequence[int] = (0,),
        call: Mapping[str, Any] | None = None,
        size: int | None = None,
        scale: int = 1,
    ) -> Batch:
        """Each line with each of its own seeds, or of `seeds`; `call` holds arguments of a call for all lines."""
        known: dict[str, int] = {}
        ways: dict[str, int] = {}
        orders: list[Order] = []
        items = []
        said = dict(call or {})
        negative = said.pop("negative", None)
        for line in lines:
            own = {name: value for name, value in line.call.items() if name != "negative"}
            text = json.dumps(own, sort_keys=True, default=str) if own else ""
            if text not in known:
                order = _ordered(pipe.model, line, said, own)
                known[text] = ways.setdefault(json.dumps(Batch._way(order)), len(orders))
                orders += [order] if known[text] == len(orders) else []
            away = line.call.get("negative", negative)
            items += [Item(line.subject, away, seed, known[text]) for seed in line.seeds or seeds]
        return Batch(pipe.model, tuple(orders), tuple(items), size, scale)

    def __post_init__(self) -> None:
        if not 1 <= len(self.items) <= MAX_ITEMS:
            raise InvalidInput(f"a batch of drawings has 1 to {MAX_ITEMS:,} images, got {len(self.items):,}")
        if self.size is not None and (type(self.size) is not int or not 1 <= self.size <= MAX_BATCH):
            raise InvalidInput(f"batch must be a whole number from 1 to {MAX_BATCH}, or None, got {self.size!r}")
        for order in self.orders:
            if max(order.drawing.height, order.drawing.width) * self.scale > MAX_SIDE:
                raise InvalidInput(
                    f"scale {self.scale} makes pictures of more than {MAX_SIDE} pixels a side: use a lower one"
                )
            together = order.drawing.but(negative=(None,), seed=0, count=min(self.size or 1, len(self.items)))
            check_asked(self.model, replace(order, drawing=together))
        checked = set()
        for item in self.items:
            if type(item.seed) is not int or not 0 <= item.seed <= SEED_LIMIT:
                raise InvalidInput(f"a seed must be a whole number from 0 to 2**64 - 1, got {item.seed!r}")
            kinds = tuple(str if isinstance(one, str) else repr(one) for one in (item.subject, item.negative))
            if (kinds, item.order) not in checked:  # all words are alike to the check
                checked.add((kinds, item.order))
                order = self.orders[item.order]
                check(self.model, replace(order, drawing=order.drawing.but(**self._fields(item))))

    @property
    def driver(self) -> str:
        """What runs the plans: "eager", or "slots" where the images differ."""
        return "eager" if len(self.orders) == 1 else "slots"

    def drawing(self, index: int) -> Drawing:
        """What one image is drawn from."""
        return self._alone(self.items[index]).drawing

    def parts(self) -> list[tuple[int, ...]]:
        """Indices of the images that are drawn together, in the order of drawing.

        Eager parts share the kind of negative condition; parts in slots share the size and the weaker model.
        """
        if self.size is None:
            raise InvalidInput("the batch size is not known yet: give one")
        groups: dict[Any, list[int]] = {}
        for index, item in enumerate(self.items):
            drawing = self.orders[item.order].drawing
            alike = (item.negative is None, drawing.height, drawing.width, drawing.guidance.weaker)
            groups.setdefault(alike[0] if self.driver == "eager" else alike[1:], []).append(index)
        most = self.size if self.driver == "eager" else ROUND * self.size
        return [tuple(own[i : i + most]) for own in groups.values() for i in range(0, len(own), most)]

    def identity(self) -> dict[str, Any]:
        """What decides the images, as plain JSON values; of the items, a digest."""
        items = hashlib.sha256()
        for item in self.items:
            items.update(json.dumps(item).encode() + b"\n")
        ways = [self._way(order) for order in self.orders]
        return {
            "model": self.model.digest,
            "images": len(self.items),
            "prompts and seeds": items.hexdigest(),
            **(ways[0] if len(ways) == 1 else {"ways": ways}),
            "dtype": str(self.model.dtype),
            "device": str(self.model.device).partition(":")[0],
            "scale": self.scale,
            "batch": self.size,
        }

    def draw(self, indices: Sequence[int], plan: Plan | None = None) -> list[Images]:
        """The images of one part, each alone, those that are not finite too; `plan` in place of their own."""
        items = [self.items[i] for i in indices]
        if self.driver == "slots" and plan is None:
            return draw_in_slots(self.model, [self._alone(item) for item in items], self.size or 1)
        order = self.orders[items[0].order]
        field = self.model.conditioner.field
        drawing = order.drawing.model_copy(
            update={
                field: tuple(item.subject for item in items),
                "negative": tuple(item.negative for item in items),
                "seed": tuple(item.seed for item in items),
                "count": 1,
            }
        )
        order = replace(order, drawing=drawing, run=Run(len(items)), plan=plan or order.plan)
        try:
            images = draw(self.model, order)
        except LostImages as error:
            images = error.everything
        return [images[i] for i in range(len(items))]

    def _alone(self, item: Item) -> Order:
        order = self.orders[item.order]
        return replace(order, drawing=order.drawing.model_copy(update=self._fields(item)))

    def _fields(self, item: Item) -> dict[str, Any]:
        field = self.model.conditioner.field
        return {field: (item.subject,), "negative": (item.negative,), "seed": item.seed, "count": 1}

    @staticmethod
    def _way(order: Order) -> dict[str, Any]:
        drawing = order.drawing.to_json()
        for name in ("prompts", "labels", "negative", "seed", "count"):
            del drawing[name]
        return {**drawing, "plan": order.plan.digest}


def _ordered(model: Model, line: PromptLine, call: Mapping[str, Any], own: Mapping[str, Any]) -> Order:
    """The order of a line, `own` being its arguments. Errors name the line."""
    try:
        return ordered(model, (line.subject,), _over(model, call, own))
    except InvalidInput as error:
        raise InvalidInput(f"{line.where}: {error}" if line.where else str(error)) from error


def _over(model: Model, call: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a line over those of all lines, as a call."""
    if not own:
        return dict(call)
    layers: list[Overlay] = []
    for said in (call, own):
        if said.get("preset") is not None:
            layers.append(preset_for(model, said["preset"]))
        layers.append(overlay_of(said))
    found = merged(*layers)
    return {**found.pop("run", {}), **found, "weak": own.get("weak", call.get("weak"))}
