"""fewstep: the best images from any diffusion or flow-matching model in the fewest network evaluations.

    import fewstep as fs

    schedule = fs.schedules.scaled_linear()
    plan = fs.compile("dpmpp-2m", schedule=schedule, steps=20, grid="karras")
    x0 = fs.sample(plan, denoiser, shape=(4, 3, 32, 32), seed=0)

Names are imported when they are first used, so that `fewstep --help` needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fewstep.lazy import importer

if TYPE_CHECKING:
    from fewstep import (
        batch,
        benchmark,
        data,
        distillation,
        doctor,
        drawing,
        files,
        measure,
        models,
        optimization,
        pipeline,
        recipes,
        schedules,
        show,
        training,
        tuning,
        variants,
        zoo,
    )
    from fewstep.adaptive import sample_adaptive
    from fewstep.benchmark import bench, choose
    from fewstep.core.errors import InvalidInput
    from fewstep.core.grid import GRIDS
    from fewstep.core.plan import Plan, Recipe
    from fewstep.denoise.apg import APG
    from fewstep.denoise.autoguidance import AutoGuidance
    from fewstep.denoise.base import Denoiser
    from fewstep.denoise.cfg import CFG
    from fewstep.denoise.cfgpp import CFGPlusPlus
    from fewstep.denoise.cfgzero import CFGZero
    from fewstep.denoise.convert import Network, OnSchedule
    from fewstep.denoise.embedded import embedded_guidance
    from fewstep.denoise.guided import Guided
    from fewstep.denoise.pag import PAG
    from fewstep.denoise.project import clip, dynamic_threshold
    from fewstep.denoise.row import RowFacts
    from fewstep.denoise.scale import GuidanceSchedule, check_negative
    from fewstep.distillation import distill
    from fewstep.doctor import diagnose
    from fewstep.drawing import PRESETS, Decode, Drawing, Estimate, Guidance, Sampling, preset
    from fewstep.measure.saturation import saturation
    from fewstep.models import NetworkSpec, TensorCache
    from fewstep.optimization import optimize
    from fewstep.pipeline import Pipeline, load
    from fewstep.run.eager import Cancelled, NonFinite, Progress, sample, sample_pair
    from fewstep.run.graph import Graph
    from fewstep.run.slots import Request, Slots
    from fewstep.solvers.compiler import compile, solver_of
    from fewstep.solvers.registry import SAMPLERS
    from fewstep.training import train_on
    from fewstep.tuning import Problem, tune
    from fewstep.zoo import scenes

_ROOMS = {
    "batch": "fewstep.batch",
    "benchmark": "fewstep.benchmark",
    "data": "fewstep.data",
    "distillation": "fewstep.distillation",
    "doctor": "fewstep.doctor",
    "drawing": "fewstep.drawing",
    "files": "fewstep.files",
    "measure": "fewstep.measure",
    "models": "fewstep.models",
    "optimization": "fewstep.optimization",
    "pipeline": "fewstep.pipeline",
    "recipes": "fewstep.recipes",
    "scenes": "fewstep.zoo.scenes",
    "schedules": "fewstep.schedules",
    "show": "fewstep.show",
    "training": "fewstep.training",
    "tuning": "fewstep.tuning",
    "variants": "fewstep.variants",
    "zoo": "fewstep.zoo",
}
_HOMES = {
    "fewstep.adaptive": ["sample_adaptive"],
    "fewstep.benchmark": ["bench", "choose"],
    "fewstep.core.errors": ["InvalidInput"],
    "fewstep.core.grid": ["GRIDS"],
    "fewstep.core.plan": ["Plan", "Recipe"],
    "fewstep.denoise.apg": ["APG"],
    "fewstep.denoise.autoguidance": ["AutoGuidance"],
    "fewstep.denoise.base": ["Denoiser"],
    "fewstep.denoise.cfg": ["CFG"],
    "fewstep.denoise.cfgpp": ["CFGPlusPlus"],
    "fewstep.denoise.cfgzero": ["CFGZero"],
    "fewstep.denoise.convert": ["Network", "OnSchedule"],
    "fewstep.denoise.embedded": ["embedded_guidance"],
    "fewstep.denoise.guided": ["Guided"],
    "fewstep.denoise.pag": ["PAG"],
    "fewstep.denoise.project": ["clip", "dynamic_threshold"],
    "fewstep.denoise.row": ["RowFacts"],
    "fewstep.denoise.scale": ["GuidanceSchedule", "check_negative"],
    "fewstep.distillation": ["distill"],
    "fewstep.training": ["train_on"],
    "fewstep.doctor": ["diagnose"],
    "fewstep.measure.saturation": ["saturation"],
    "fewstep.drawing": ["PRESETS", "Decode", "Drawing", "Estimate", "Guidance", "Sampling", "preset"],
    "fewstep.models": ["NetworkSpec", "TensorCache"],
    "fewstep.optimization": ["optimize"],
    "fewstep.pipeline": ["Pipeline", "load"],
    "fewstep.run.eager": ["Cancelled", "NonFinite", "Progress", "sample", "sample_pair"],
    "fewstep.run.graph": ["Graph"],
    "fewstep.run.slots": ["Request", "Slots"],
    "fewstep.solvers.compiler": ["compile", "solver_of"],
    "fewstep.solvers.registry": ["SAMPLERS"],
    "fewstep.tuning": ["Problem", "tune"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "APG",
    "CFG",
    "GRIDS",
    "PAG",
    "PRESETS",
    "SAMPLERS",
    "AutoGuidance",
    "CFGPlusPlus",
    "CFGZero",
    "Cancelled",
    "Decode",
    "Denoiser",
    "Drawing",
    "Estimate",
    "Graph",
    "Guidance",
    "GuidanceSchedule",
    "Guided",
    "InvalidInput",
    "Network",
    "NetworkSpec",
    "NonFinite",
    "OnSchedule",
    "Pipeline",
    "Plan",
    "Problem",
    "Progress",
    "Recipe",
    "Request",
    "RowFacts",
    "Sampling",
    "Slots",
    "TensorCache",
    "batch",
    "bench",
    "benchmark",
    "check_negative",
    "choose",
    "clip",
    "compile",
    "data",
    "diagnose",
    "distill",
    "distillation",
    "doctor",
    "drawing",
    "dynamic_threshold",
    "embedded_guidance",
    "files",
    "load",
    "measure",
    "models",
    "optimization",
    "optimize",
    "pipeline",
    "preset",
    "recipes",
    "sample",
    "sample_adaptive",
    "sample_pair",
    "saturation",
    "scenes",
    "schedules",
    "show",
    "solver_of",
    "train_on",
    "training",
    "tune",
    "tuning",
    "variants",
    "zoo",
]


__getattr__ = importer(__name__, _HOME, _ROOMS)


def __dir__() -> list[str]:
    return __all__
