"""What a checkpoint says of itself: what its network predicts, and whether its noise schedule ends in pure noise.

Neither can be seen from the weights. Trainers write it down in several ways:

    modelspec.prediction_type       metadata: "epsilon" or "v" (the model spec of Stability AI)
    ss_v_parameterization           metadata of kohya's trainer: "True" or "False"
    ss_zero_terminal_snr            the same, of the noise schedule
    v_pred, ztsnr                   tensors that are there or not, which ComfyUI reads
    alphas_cumprod                  the noise schedule as a tensor, which ends at 0 where there is no signal left

These are statements on a schedule of betas. A file of a flow may carry the trainer's "epsilon" all the same, and its
tensors decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open

from fewstep import schedules
from fewstep.core.errors import InvalidInput, shown, unknown_name
from fewstep.core.schedule import Schedule
from fewstep.denoise.prediction import PREDICTIONS
from fewstep.models.families import prediction_of
from fewstep.zoo.container import Header

SPEC, V, ZERO, ALPHAS = "modelspec.prediction_type", "ss_v_parameterization", "ss_zero_terminal_snr", "alphas_cumprod"
NAMES = {"epsilon": "epsilon", "eps": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}
BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
NOTHING = ("", "none", "null")
"""What a trainer writes where it has nothing to say."""
FOREIGN = {
    "edm_vpred.sigma_max": "v on the noise levels of EDM, as CosXL does",
    "edm_mean": "on the noise levels of EDM with latents of its own scale, as Playground 2.5 does",
}
"""Tensors that mark what fewstep does not know on a schedule of betas."""
MOST_TIMES, NEAR = 100_000, 0.01
"""Most entries of a noise schedule; how far its products may be from those of the configuration, as some are halved."""


class Statement(NamedTuple):
    """A value, and where it is said."""

    value: Any
    where: str


@dataclass(frozen=True)
class Claims:
    """What the caller says of a network, which decides where its configuration says otherwise; None says nothing."""

    prediction: str | None = None
    zero_snr: bool | None = None

    def __post_init__(self) -> None:
        if self.prediction is not None and self.prediction not in PREDICTIONS:
            raise unknown_name("prediction type", str(self.prediction)[:60], PREDICTIONS)
        if self.zero_snr is not None and type(self.zero_snr) is not bool:
            raise InvalidInput(f"zero_snr is True, False or None, got {shown(self.zero_snr)}")

    @property
    def names(self) -> list[str]:
        """Of what is said."""
        return [name for name, value in vars(self).items() if value is not None]


SILENT = Claims()
"""Says nothing."""


class Scheduler(NamedTuple):
    """The configuration of a scheduler, where it lies, and whether it is of this very model and not one of its kind."""

    config: Mapping[str, Any]
    where: str
    own: bool = True

    def said(self, key: str) -> list[Statement]:
        """What it says under a key, nothing where it is not of this model."""
        value = self.config.get(key)
        return [Statement(value, self.where)] if self.own and value is not None else []


def settled(scheduler: Scheduler, headers: Sequence[Header], claims: Claims, remedy: str) -> tuple[Schedule, str]:
    """The noise schedule and the prediction type on which a scheduler, files of weights and the caller agree.

    Args:
        headers: of the files with the network's weights.
        remedy: what to do, beside saying which one is right, where a file and the scheduler disagree.

    Raises:
        InvalidInput: they disagree, or a file says what is not known.
    """
    config = scheduler.config
    schedule = schedules.from_diffusers(config)
    prediction = prediction_of(config, schedule.kind)
    if schedule.kind in ("flow", "edm"):
        if claims.zero_snr is not None or claims.prediction not in (None, prediction):
            raise InvalidInput(
                f"{scheduler.where} describes the noise schedule {schedule.kind!r}, whose networks predict "
                f"{prediction!r} and which has no betas: leave out {' and '.join(claims.names)}"
            )
        return schedule, prediction
    _refuse_foreign(headers)
    predictions = [one for header in headers for one in _predictions(header, claims.prediction is not None)]
    zeros = [one for header in headers for one in _zeros(header, claims.zero_snr is not None)]
    prediction = _agreed(
        "prediction", claims.prediction, predictions, scheduler.said("prediction_type"), prediction, remedy
    )
    told = bool(config.get("rescale_betas_zero_snr", False))
    zero = _agreed("zero_snr", claims.zero_snr, zeros, scheduler.said("rescale_betas_zero_snr"), told, remedy)
    both = {kept: schedules.from_diffusers({**config, "rescale_betas_zero_snr": kept}) for kept in (False, True)}
    for header in headers:
        _check_alphas(header, list(both.values()), scheduler.where)
    return both[zero], prediction


def _predictions(header: Header, known: bool) -> Iterator[Statement]:
    """What a file says that its network predicts; unknown words are left out where the caller has `known` ones."""
    if "v_pred" in header.shapes:
        yield Statement("v_prediction", f"{header.path} has a tensor v_pred, which")
    yield from _read(header, SPEC, NAMES, known)
    for value, where in _read(header, V, BOOLEANS, known):
        yield Statement("v_prediction" if value else "epsilon", where)


def _zeros(header: Header, known: bool) -> Iterator[Statement]:
    """What a file says of zero terminal SNR."""
    if "ztsnr" in header.shapes:
        yield Statement(True, f"{header.path} has a tensor ztsnr, which")
    yield from _read(header, ZERO, BOOLEANS, known)
    alphas = _alphas(header)
    if alphas is not None and alphas[-1] == 0:
        yield Statement(True, f"{header.path} has a tensor alphas_cumprod that ends at 0, which")


def _read(header: Header, key: str, words: Mapping[str, Any], known: bool) -> Iterator[Statement]:
    text = header.metadata.get(key, "").strip().lower().replace("-", "_")
    if text in words:
        yield Statement(words[text], f"{header.path}, in its metadata {key},")
    elif text not in NOTHING and not known:
        option = "zero_snr" if key == ZERO else "prediction"
        raise InvalidInput(
            f"{header.path} has the metadata {key} {shown(header.metadata[key])}, and known are {', '.join(words)}: "
            f"give {option}="
        )


def _agreed(
    name: str, claimed: Any, said: Sequence[Statement], own: Sequence[Statement], usual: Any, remedy: str
) -> Any:
    """The value that is claimed or said, if that is one."""
    values = {one.value for one in said}
    if claimed is not None:
        if said and claimed not in values:
            raise InvalidInput(
                f"{name} is given as {claimed!r}, and {said[0].where} says {said[0].value!r}: leave {name} out, or, "
                "if the file is wrong about itself, remove that from it"
            )
        return claimed
    if not said:
        return usual
    other = next((one for one in (*said, *own) if one.value != said[0].value), None)
    if other is not None:
        found = next((one for one in said if one.value == other.value), None)
        right = f"{name}= the one that is right" if found else f"{name}={said[0].value!r}"
        raise InvalidInput(
            f"{said[0].where} says {name} {said[0].value!r}, and {other.where} says {other.value!r}: "
            f"{'' if found else f'{remedy}, or '}give {right}"
        )
    return said[0].value


def _refuse_foreign(headers: Sequence[Header]) -> None:
    for header in headers:
        for mark, words in FOREIGN.items():
            if mark in header.shapes:
                raise InvalidInput(
                    f"{header.path} has a tensor {mark}, which says that it predicts {words}: fewstep does not know "
                    "such a model"
                )


def _alphas(header: Header) -> Any:
    """The products of (1 - beta) that a file holds, in float64, or None."""
    shape = header.shapes.get(ALPHAS)
    if shape is None:
        return None
    if len(shape) != 1 or not 2 <= shape[0] <= MOST_TIMES:
        raise InvalidInput(f"{header.path} has a tensor {ALPHAS} of shape {shape}, which is not a noise schedule")
    with safe_open(header.path, framework="pt") as file:
        return file.get_tensor(ALPHAS).double().numpy()


def _check_alphas(header: Header, allowed: Sequence[Schedule], where: str) -> None:
    """Raise `InvalidInput` where a file holds another noise schedule than these, with or without zero terminal SNR."""
    alphas = _alphas(header)
    if alphas is None:
        return
    for schedule in allowed:
        known = np.asarray(schedule.alphas_cumprod)  # type: ignore[attr-defined]  # of betas, as settled before
        if known.shape == alphas.shape and np.abs(known - alphas).max() <= NEAR:
            return
    raise InvalidInput(
        f"{header.path} has a tensor {ALPHAS} of another noise schedule than that of {where}: give a config= of the "
        "model that the file was made from"
    )
