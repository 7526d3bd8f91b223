"""The images of an order, batch by batch: encode, start, denoise, decode, and say which images were lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.drawing import Drawing, Made
from fewstep.models import Model
from fewstep.models.identity import in_dtype
from fewstep.pipeline.images import Images
from fewstep.pipeline.order import OnRow, Order
from fewstep.pipeline.stages import Conditioned, Encoded, decode, denoise, denoiser_of, encode, start
from fewstep.run.eager import Cancelled, NonFinite, Progress


class LostImages(NonFinite):
    """Some images are NaN or infinite. `everything` holds all of them, `finished` the good ones, or None for none."""

    def __init__(self, message: str, first: NonFinite, images: list[int], everything: Images, finished: Images | None):
        super().__init__(message, first.row, first.label, images, everything.tensor)
        self.everything, self.finished = everything, finished


def made_by(model: Model, order: Order, keep: Sequence[int] | None = None, driver: Any = "eager") -> Made:
    """How the images of an order are made; `keep` says which are wanted, None means all."""
    return Made(
        model=model.name,
        model_digest=model.digest,
        plan=order.plan.digest,
        batch=order.run.batch,
        keep=None if keep is None else tuple(keep),
        driver=driver,
        dtype=in_dtype(model.dtype).get("dtype", "float32"),
        device=str(model.device).partition(":")[0],
    )


def draw(
    model: Model, order: Order, keep: Sequence[int] | None = None, encoded: Sequence[Encoded] | None = None
) -> Images:
    """The images of an order.

    Args:
        keep: which images are wanted; their batches are drawn whole, so that they are the same bit for bit.
        encoded: the conditions of each image, in place of those of the drawing.

    Raises:
        InvalidInput: the parts of the model do not fit. `stages.check` finds what the model cannot do, before.
        LostImages: some images are not finite. The others are in it.
    """
    drawing, size = order.drawing, order.run.batch
    made = made_by(model, order, keep)
    kept, images = made.kept(len(drawing)), list(drawing.each)
    shape = model.state_shape(drawing.height, drawing.width)
    began = time.perf_counter()
    if encoded is None:
        rows = encode(model, [images[i] for i in kept], order.weaker, warn=True)
        known = dict(zip(kept, rows, strict=True))
        encoded = [known.get(i, rows[0]) for i in range(len(images))]  # of the others no image is kept
    encoding = time.perf_counter() - began
    firsts = sorted({i // size * size for i in kept})
    work = _Work(model, order, images, encoded, len(firsts) * len(order.plan.rows))
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1)) if order.run.overlap else None
        result = torch.full((len(images), *model.codec.pixel_shape(shape)), torch.nan)
        decoding = _Decoding(lambda states: decode(model, states, drawing), result, pool)
        for turn, first in enumerate(firsts):
            part = slice(first, min(first + size, len(images)))
            decoding.add(part, work.states(part, turn * len(order.plan.rows)))
        decoding.wait()
    work.look(decoding.result, kept)
    seconds = {**order.origin.seconds, "encode": encoding, "denoise": work.seconds, "decode": decoding.seconds}
    pictures = order.origin.paste(decoding.result[list(kept)])
    total = time.perf_counter() - began + sum(order.origin.seconds.values())
    found = Images(pictures, model.codec.value_range, drawing, made, work.nfe, total, seconds)
    return found if work.error is None or not work.lost & set(kept) else _refuse(found, work, order)


@dataclass
class _Work:
    """The batches of an order that are denoised, and what is counted on the way."""

    model: Model
    order: Order
    images: Sequence[Drawing]
    encoded: Sequence[Encoded]
    rows: int
    seconds: float = 0.0
    seen: int = 0
    evaluations: int = 0
    drawn: int = 0
    lost: set[int] = field(default_factory=set)
    error: NonFinite | None = None

    @property
    def nfe(self) -> float:
        return self.evaluations / self.drawn

    def states(self, part: slice, offset: int) -> Tensor:
        """The states of a batch; `offset` rows of the order are done before."""
        began, order, images = time.perf_counter(), self.order, self.images[part]
        conditions = Conditioned.of(self.model, self.encoded[part], order.weaker, order.origin)
        denoiser = denoiser_of(
            self.model,
            order.drawing.guidance,
            conditions,
            order.plan,
            weaker=order.weaker,
            estimate=order.drawing.estimate,
            known=order.origin.known,
            counted=self.counted,
        )
        before, self.seen = self.evaluations, 0
        entry = start(self.model, order.plan, images, order.origin.of(part))
        try:
            states = denoise(order, denoiser, images, entry, self._watching(before, offset))
        except NonFinite as failure:
            self.error, states = self.error or failure, failure.result
            self.lost |= {part.start + i for i in failure.images}
        except Cancelled as cancelled:
            raise Cancelled(offset + cancelled.row, self.rows, cancelled.preview) from None
        self.drawn += len(images)
        self.seconds += time.perf_counter() - began
        return states

    def counted(self, network: Callable[..., Any]) -> Callable[..., Any]:
        def call(x: Tensor, t: Tensor, **condition: Any) -> Any:
            self.seen += x.shape[0]
            return network(x, t, **condition)

        return call

    def _watching(self, before: int, offset: int) -> OnRow:
        def watch(progress: Progress) -> bool | None:
            self.evaluations = before + self.seen  # not read at the end: a failed run is repeated to find the row
            on_row = self.order.run.on_row
            if on_row is None:
                return None
            return on_row(replace(progress, index=offset + progress.index, rows=self.rows))

        return watch

    def look(self, pictures: Tensor, kept: Sequence[int]) -> None:
        """Find what the decoder lost."""
        bad = (~torch.isfinite(pictures).flatten(1).all(dim=1)).nonzero().flatten().tolist()
        bad = [i for i in bad if i in kept and i not in self.lost]
        if bad:
            message = "the decoder returned NaN or infinity: try dtype float32"
            self.error = self.error or NonFinite(message, None, "decoding", bad, pictures)
            self.lost |= set(bad)


@dataclass
class _Decoding:
    """Pictures from states, batch by batch, in this thread or in the one of `pool`."""

    decode: Callable[[Tensor], Tensor]
    result: Tensor
    pool: ThreadPoolExecutor | None
    seconds: float = 0.0
    jobs: list[Future[None]] = field(default_factory=list)

    def add(self, part: slice, states: Tensor) -> None:
        if self.pool is None:
            self._one(part, states)
        else:
            self.jobs.append(self.pool.submit(self._one, part, states))

    def _one(self, part: slice, states: Tensor) -> None:
        began = time.perf_counter()
        pictures = self.decode(states)
        if pictures.shape[1:] != self.result.shape[1:]:
            raise InvalidInput(
                f"the decoder made images of shape {tuple(pictures.shape[1:])} where {tuple(self.result.shape[1:])} "
                "were expected: the configurations of the network and of the VAE do not fit"
            )
        self.result[part] = pictures
        self.seconds += time.perf_counter() - began

    def wait(self) -> None:
        for job in self.jobs:
            job.result()


def _refuse(images: Images, work: _Work, order: Order) -> Images:
    """Raise `LostImages`."""
    error = work.error
    assert error is not None
    bad = [place for place, i in enumerate(images.kept) if i in work.lost]
    good = [place for place, i in enumerate(images.kept) if i not in work.lost]
    place = "at the start" if error.row is None else f"at row {error.row} of {len(order.plan.rows)} ({error.label})"
    if error.label == "decoding":
        place = "in the decoder"
    raise LostImages(
        f"{len(bad)} of {len(images)} images are NaN or infinite, first {place}. Try a lower guidance scale, clip, or "
        "another sampler; where all are lost, the weights or the prediction type may be wrong",
        error,
        bad,
        images,
        images.take(good) if good else None,
    ) from error
