"""The loop over the batches of a drawing: sample each, decode each, and say which images were lost."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fewstep.core.errors import InvalidInput
from fewstep.core.plan import Plan
from fewstep.denoise.base import Denoiser
from fewstep.pipeline.images import Images
from fewstep.pipeline.recipe import MAX_NFE, ImageRecipe
from fewstep.run.eager import Cancelled, NonFinite, Progress, sample
from fewstep.run.noise import seeds_of

MAX_BYTES = 4 << 30
"""Most bytes of the images of one drawing."""

OnRow = Callable[[Progress], bool | None]
Network = Callable[..., Any]
Counted = Callable[[Network], Network]
Start = Callable[[slice, Sequence[int]], Tensor | tuple[Tensor, Tensor]]


class LostImages(NonFinite):
    """Some images are NaN or infinite. `everything` holds all of them, `finished` the good ones, or None for none."""

    def __init__(self, message: str, first: NonFinite, images: list[int], everything: Images, finished: Images | None):
        super().__init__(message, first.row, first.label, images, everything.tensor)
        self.everything, self.finished = everything, finished


@dataclass(frozen=True, eq=False)
class Given:
    """What a drawing has beside words.

    Attributes:
        start: states (B, C, H, W) at the plan's entry, two of them where it starts from a pair, for the images `part`
            with these seeds; None is noise alone.
        around: from the denoiser of a batch to the one that is run.
        channels: input channels of the network beside the latents, (1, c, H, W), the same for every image.
        seconds: that the stages which made these took, by name.
    """

    start: Start | None = None
    around: Callable[[Denoiser], Denoiser] = lambda denoiser: denoiser
    channels: Tensor | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)


WORDS_ALONE = Given()


@dataclass(frozen=True, eq=False)
class Means:
    """What a drawing is done with and its recipe does not hold.

    Attributes:
        on_row: called after each network evaluation of each batch; True cancels.
        overlap: decode a batch while the next one is denoised.
        weak: the weaker model of autoguidance, of the same kind as the pipeline.
    """

    on_row: OnRow | None = None
    overlap: bool = False
    weak: Any = None


@dataclass(frozen=True)
class Canvas:
    """What is drawn on.

    Attributes:
        shape: of one state, (C, H, W); `pixels`: of one image, which is the state's own where nothing decodes it.
        denoiser: (counted, part) -> the denoiser of a batch, the images `part`; its networks go through `counted`, so
            that their evaluations are.
        decode: from the states of a batch to its images on the host.
        overlap: decode a batch in a thread of its own while the next one is sampled.
        start: see `Given`.
    """

    shape: tuple[int, ...]
    pixels: tuple[int, ...]
    value_range: tuple[float, float]
    denoiser: Callable[[Counted, slice], Denoiser]
    decode: Callable[[Tensor], Tensor] | None = None
    overlap: bool = False
    device: torch.device | str = "cpu"
    start: Start | None = None


@dataclass
class _Run:
    """Counts the networks' evaluations in one batch, and reports rows over all batches."""

    report: OnRow | None
    offset: int
    rows: int
    seen: int = 0
    evaluations: int = 0

    def counted(self, network: Network) -> Network:
        def call(x: Tensor, t: Tensor, **condition: Any) -> Any:
            self.seen += x.shape[0]
            return network(x, t, **condition)

        return call

    def on_row(self, progress: Progress) -> bool | None:
        self.evaluations = self.seen  # not read at the end: a failed run is repeated to find the row
        if self.report is None:
            return None
        return self.report(replace(progress, index=self.offset + progress.index, rows=self.rows))


@dataclass
class _Decoding:
    """Pictures from states, batch by batch, in this thread or in the one of `pool`."""

    decode: Callable[[Tensor], Tensor] | None
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
        pictures = states.to("cpu", torch.float32) if self.decode is None else self.decode(states)
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


def check_cost(plan: Plan, images: int, *shapes: Sequence[int]) -> None:
    """Raise `InvalidInput` for more evaluations or memory than a drawing may take."""
    if plan.nfe > MAX_NFE:
        raise InvalidInput(f"the plan has {plan.nfe} network evaluations, at most {MAX_NFE} are drawn: use fewer steps")
    for shape in shapes:
        if images * math.prod(shape) * 4 > MAX_BYTES:
            raise InvalidInput(
                f"{images} images of {tuple(shape)} take more than {MAX_BYTES >> 30} GiB: draw fewer at once"
            )


def draw(
    recipe: ImageRecipe, plan: Plan, canvas: Canvas, on_row: OnRow | None, before: dict[str, float] | None = None
) -> Images:
    """The images of a recipe. `before`: seconds of the stages that came before this one, by name.

    Raises:
        LostImages: some images are not finite. The others are in it.
    """
    n, kept, size = len(recipe.labels), recipe.kept, recipe.batch
    check_cost(plan, n, canvas.shape, canvas.pixels)
    seeds = seeds_of(recipe.seed, n)
    starts = [first for first in range(0, n, size) if any(first <= i < first + size for i in kept)]
    began, evaluations, drawn, sampling = time.perf_counter(), 0, 0, 0.0
    lost: set[int] = set()
    error: NonFinite | None = None
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1)) if canvas.overlap and canvas.decode else None
        decoding = _Decoding(canvas.decode, torch.full((n, *canvas.pixels), torch.nan), pool)
        for turn, first in enumerate(starts):
            run = _Run(on_row, turn * plan.nfe, len(starts) * plan.nfe)
            part = slice(first, min(first + size, n))
            shape, started = (part.stop - first, *canvas.shape), time.perf_counter()
            start = None if canvas.start is None else canvas.start(part, seeds[part])
            noise = shape if start is None else None
            denoiser = canvas.denoiser(run.counted, part)
            try:
                states = sample(
                    plan, denoiser, shape=noise, start=start, seed=seeds[part], device=canvas.device, on_row=run.on_row
                )
            except NonFinite as failure:
                error, states = error or failure, failure.result
                lost |= {first + i for i in failure.images}
            except Cancelled as cancelled:
                raise Cancelled(run.offset + cancelled.row, run.rows, cancelled.preview) from None
            sampling += time.perf_counter() - started
            decoding.add(part, states)
            evaluations, drawn = evaluations + run.evaluations, drawn + shape[0]
        decoding.wait()
    timings = {**(before or {}), "denoise": sampling}
    if canvas.decode is not None:
        timings["decode"] = decoding.seconds
        bad = (~torch.isfinite(decoding.result).flatten(1).all(dim=1)).nonzero().flatten().tolist()
        bad = [i for i in bad if i in kept and i not in lost]
        if bad:
            message = "the decoder returned NaN or infinity: try dtype float32"
            error, lost = error or NonFinite(message, None, "decoding", bad, decoding.result), lost | set(bad)
    seconds = time.perf_counter() - began + sum((before or {}).values())
    images = Images(decoding.result[list(kept)], canvas.value_range, recipe, evaluations / drawn, seconds, timings)
    return images if error is None or not lost & set(kept) else _refuse(images, lost, error, plan)


def _refuse(images: Images, lost: set[int], error: NonFinite, plan: Plan) -> Images:
    """Raise `LostImages`."""
    kept = images.recipe.kept
    bad = [place for place, i in enumerate(kept) if i in lost]
    good = [place for place, i in enumerate(kept) if i not in lost]
    place = "at the start" if error.row is None else f"at row {error.row} of {plan.nfe} ({error.label})"
    if error.label == "decoding":
        place = "in the decoder"
    raise LostImages(
        f"{len(bad)} of {len(kept)} images are NaN or infinite, first {place}. Try a lower guidance "
        "scale, clip, or another sampler; where all are lost, the weights or the prediction type may be wrong",
        error,
        bad,
        images,
        images.take(good) if good else None,
    ) from error
