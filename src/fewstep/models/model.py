"""A model: what a checkpoint is, in parts. What differs between kinds of models lies in the parts alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewstep import schedules
from fewstep.core.errors import InvalidInput
from fewstep.core.schedule import Schedule
from fewstep.denoise.convert import Network
from fewstep.denoise.row import NO_ROW, RowFacts
from fewstep.drawing.drawing import MAX_SIDE, Drawing
from fewstep.drawing.lora import LoRA
from fewstep.drawing.overlay import Overlay, merged
from fewstep.models.cache import TensorCache
from fewstep.models.codec import Codec
from fewstep.models.conditioner import Conditioner, Conditions
from fewstep.models.defaults import CLASS_BATCH, WORD_BATCH, of_classes
from fewstep.models.identity import Identity

Counted = Callable[[Callable[..., Any]], Callable[..., Any]]
"""From a network to the same one with its evaluations counted."""
MAX_PIXELS = 1 << 26
"""Most pixels of one image: 8192 x 8192."""


@dataclass(frozen=True)
class ImageSizes:
    """The sizes of images that a model can make, in pixels.

    Attributes:
        channels: of a state; `factor`: pixels of an image for one value of a state, along each side.
        height, width: what the model was made for.
        multiple: other heights and widths are multiples of it, up to `most`; 0 is none.
    """

    channels: int
    height: int
    width: int
    factor: int = 1
    multiple: int = 0
    most: int = MAX_SIDE

    def check(self, name: str, height: int, width: int) -> None:
        """Raise `InvalidInput` where the model `name` cannot make images of this size."""
        if not self.multiple and (height, width) != (self.height, self.width):
            raise InvalidInput(f"{name} makes only images of {self.height} x {self.width} pixels: leave the size out")
        for side, value in (("height", height), ("width", width)):
            if type(value) is not int or value % (self.multiple or 1) or not 0 < value <= self.most:
                raise InvalidInput(
                    f"{side} is {value!r}; {name} makes multiples of {self.multiple} up to {self.most} pixels"
                )
        if height * width > MAX_PIXELS:
            raise InvalidInput(f"an image of {width} x {height} pixels has more than {MAX_PIXELS:,}: use fewer")


@dataclass(frozen=True)
class TeacherFacts:
    """Of the model that a student was trained from.

    Attributes:
        name: of the teacher.
        guidance: the scale that the student has inside.
        scales: the lowest and the highest that the student is told instead, None where it is told none.
    """

    name: str
    guidance: float
    scales: tuple[float, float] | None = None

    @staticmethod
    def of(facts: Mapping[str, Any]) -> TeacherFacts | None:
        """From what a student's files say of their training; None where they do not say it is one."""
        found = facts.get("student")
        if not isinstance(found, Mapping) or not isinstance(found.get("guidance"), int | float):
            return None
        scales = found.get("scales")
        interval = None
        if isinstance(scales, list) and len(scales) == 2 and all(isinstance(one, int | float) for one in scales):
            interval = float(scales[0]), float(scales[1])
        return TeacherFacts(str(found.get("teacher"))[:200], float(found["guidance"]), interval)


@dataclass(frozen=True, eq=False)
class Model:
    """A network with all that drawing with it needs. Holds no state of a run.

    Attributes:
        network: called as `network(x, t, **condition)`, conditions being tensors with the batch first.
        schedule: the noise schedule that it was trained with; `prediction` is what it was trained to predict.
        conditioner: from labels or words to conditions; `codec`: from states to pixels and back.
        sizes: of images that it can make.
        identity: by what it is known.
        recommended: the overlay that completes what a caller asks for; `batch`: images at once for most callers.
        dtype: what the network runs in, None for that of its parameters.
        time_scale, sigma_data, rows: see `fewstep.Network`.
        shift: on a flow whose shift depends on the size, from the number of patches of an image to it, else None.
        patch: side of the square of a state that the network takes as one.
        cache: of embeddings of prompts and latents of pictures.
        plans: the folder of the tuned plans that come with the model.
        lora: the LoRAs that are merged into the weights.
        teacher: of a student of `fewstep distill`, which has no negative branch.
    """

    network: Callable[..., Any]
    schedule: Schedule
    prediction: str
    conditioner: Conditioner
    codec: Codec
    sizes: ImageSizes
    identity: Identity
    recommended: Overlay = field(default_factory=dict)
    batch: int = WORD_BATCH
    device: torch.device | str = "cpu"
    dtype: torch.dtype | None = None
    time_scale: float = 1.0
    sigma_data: float = 0.5
    rows: RowFacts = NO_ROW
    shift: Callable[[int], float] | None = None
    patch: int = 1
    cache: TensorCache = field(default_factory=TensorCache)
    plans: Path | None = None
    lora: tuple[LoRA, ...] = ()
    teacher: TeacherFacts | None = None

    @property
    def name(self) -> str:
        """For people, and for the names of files."""
        return self.identity.name

    @property
    def digest(self) -> str:
        """Of the weights, what they mean, and what was made of them."""
        return self.identity.digest

    @property
    def weights(self) -> str:
        """The digest of the weights alone, in whatever dtype they run; tuned plans know a model by it."""
        return self.identity.weights

    @property
    def module(self) -> nn.Module | None:
        """The torch module behind the network, where there is one."""
        return self.denoiser().module

    @property
    def dtypes(self) -> set[torch.dtype]:
        """What the network runs in: of a callable, the dtypes of its parameters, as far as they are known."""
        if self.dtype is not None:
            return {self.dtype}
        module = self.module
        return set() if module is None else {p.dtype for p in module.parameters() if p.is_floating_point()}

    def state_shape(self, height: int | None = None, width: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of the state of an image; None is the model's own size. Raises `InvalidInput` for other sizes."""
        height = self.sizes.height if height is None else height
        width = self.sizes.width if width is None else width
        self.sizes.check(self.name, height, width)
        return self.sizes.channels, height // self.sizes.factor, width // self.sizes.factor

    def schedule_at(self, height: int | None = None, width: int | None = None) -> Schedule:
        """The noise schedule for images of a size: on some flows the shift grows with the number of patches."""
        if self.shift is None:
            return self.schedule
        _, h, w = self.state_shape(height, width)
        return schedules.flow(self.shift(h * w // self.patch**2), t_min=self.schedule.t_min)

    def denoiser(
        self, counted: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda network: network
    ) -> Network:
        """The network as a denoiser, its condition still to be given; `counted` is put around it."""
        network = Network(
            self.network,
            self.schedule,
            self.prediction,
            dtype=self.dtype,
            time_scale=self.time_scale,
            sigma_data=self.sigma_data,
            rows=self.rows,
        )
        network.network = counted(self.network)
        return network

    def placed(self, rows: Sequence[Conditions]) -> dict[str, Tensor]:
        """The conditions of several images as those of a batch, where the network is and in its dtype.

        Whole numbers stay, and the scale that a distilled network is told stays in float32.
        """
        batch = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        for name, value in batch.items():
            exact = name == "guidance" or not value.is_floating_point() or self.dtype is None
            batch[name] = value.to(self.device) if exact else value.to(self.device, self.dtype)
        return batch


def class_model(
    network: Callable[..., Any],
    conditioner: Conditioner,
    codec: Codec,
    shape: Sequence[int],
    recommended: Overlay | None = None,
    *,
    schedule: Schedule,
    **facts: Any,
) -> Model:
    """A model of one size, whose states have the `shape` (C, H, W), and what it recommends itself."""
    channels, height, width = shape
    factor = codec.factor
    return Model(
        network,
        schedule,
        conditioner=conditioner,
        codec=codec,
        sizes=ImageSizes(channels, height * factor, width * factor, factor),
        recommended=merged(
            of_classes(schedule.kind), {"guidance": {"scale": conditioner.usual_scale}}, recommended or {}
        ),
        batch=CLASS_BATCH,
        **facts,
    )


def check_lora(model: Model, drawing: Drawing) -> None:
    """Raise `InvalidInput` where a drawing is with other LoRAs than those that are merged into the model."""
    if drawing.lora == model.lora:
        return
    wanted, got = (
        " and ".join(f"the LoRA {one.file} at scale {one.scale:g}" for one in loras) or "no LoRA"
        for loras in (drawing.lora, model.lora)
    )
    given = "leave lora out" if not drawing.lora else f"give {'them' if len(drawing.lora) > 1 else 'it'} as lora= alone"
    raise InvalidInput(f"this was drawn with {wanted}, and the model is loaded with {got}: {given}")
