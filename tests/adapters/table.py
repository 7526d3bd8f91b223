"""Which samplers do in which pipelines what the diffusers class of that name does: a table of docs/diffusers.md."""

from __future__ import annotations

from typing import Any

import diffusers
import torch

import fewstep as fs
from fewstep.adapters.diffusers import PlanScheduler

from .pipelines import PIPELINES, draw

SAMPLERS = ("ddim", "euler", "heun", "dpmpp-2m", "unipc-2")
BETA: dict[str, Any] = {
    "ddim": diffusers.DDIMScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
    "unipc-2": diffusers.UniPCMultistepScheduler,
}
FLOW: dict[str, Any] = {
    "ddim": diffusers.FlowMatchEulerDiscreteScheduler,  # the same table on flows
    "euler": diffusers.FlowMatchEulerDiscreteScheduler,
    "heun": diffusers.FlowMatchHeunDiscreteScheduler,
}
MULTISTEP = {
    "dpmpp-2m": diffusers.DPMSolverMultistepScheduler,
    "unipc-2": diffusers.UniPCMultistepScheduler,
}
UNSCALED = ("DiT", "DDPM", "DDIM")
"""Pipelines that begin with noise of size 1, which diffusers' own Euler and Heun do not take on beta schedules."""
BAR = {"heun": 5e-5}
USUAL = 1e-5
"""Of the largest value: both compute in float32, and Heun's method loses most."""

WORDS = {"equal": "=", "draws": "own", "refused": "no"}


def peers_of(name: str) -> dict[str, Any]:
    """The classes of diffusers that a pipeline can take on the same noise schedule and the same times."""
    host = PIPELINES[name][0]().scheduler
    kind = type(host).__name__
    if kind.startswith("FlowMatch"):
        dynamic = host.config.get("use_dynamic_shifting")  # Heun's class does not shift so
        return {sampler: peer for sampler, peer in FLOW.items() if sampler != "heun" or not dynamic}
    if host.config.get("use_flow_sigmas"):
        return MULTISTEP
    if kind in ("CMStochasticIterativeScheduler", "CosineDPMSolverMultistepScheduler"):
        return {}
    if name == "LCM":  # its pipeline asks for steps of distillation, which only its own class takes
        return {}
    if name == "LatentUpscale":  # it computes with sigmas as the classes of k-diffusion's family show them
        return {sampler: BETA[sampler] for sampler in ("euler", "heun")}
    return {k: v for k, v in BETA.items() if name not in UNSCALED or k not in ("euler", "heun")}


def cell(name: str, sampler: str) -> tuple[str, float]:
    """'equal', 'draws' or 'refused', and how far the picture is from the peer's."""
    host = PIPELINES[name][0]().scheduler
    asked = {"eta": 0.0} if name == "DDIM" else {}
    try:
        ours = PlanScheduler.from_config(host, sampler=sampler, round_times=sampler in MULTISTEP)
        found = draw(name, ours, **asked)
    except fs.InvalidInput:
        return "refused", 0.0
    if not torch.isfinite(found).all():
        raise AssertionError(f"{sampler} in {name} is not finite")
    peer = peers_of(name).get(sampler)
    if peer is None:
        return "draws", 0.0
    try:
        want = draw(name, peer.from_config(host.config), **asked)
    except TypeError:  # the class does not take what this pipeline gives to `step`
        return "draws", 0.0
    difference = float((found - want).abs().max() / want.abs().max())
    return ("equal" if difference < BAR.get(sampler, USUAL) else "apart"), difference


def rows() -> list[list[str]]:
    """The table: a pipeline with the class of its own scheduler, and a word for each sampler; raises on 'apart'."""
    table = []
    for name in PIPELINES:
        pipe = PIPELINES[name][0]()
        cells = {sampler: cell(name, sampler) for sampler in SAMPLERS}
        apart = {sampler: f"{far:.1e}" for sampler, (kind, far) in cells.items() if kind == "apart"}
        if apart:
            raise AssertionError(f"{name} draws other pictures than with diffusers' own classes: {apart}")
        own = type(pipe.scheduler).__name__.removesuffix("Scheduler")
        table.append([type(pipe).__name__, own, *(WORDS[kind] for kind, _ in cells.values())])
    return table
