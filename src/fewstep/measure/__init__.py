"""Measurements of plans and models: what a sampler does, and how good it is.

    from fewstep import measure

    solution = measure.Converged.solve(denoiser, (16, 1, 8, 8))
    error = measure.trajectory_error(plan, denoiser, solution)
    real, drawn = measure.Summary(features), measure.Summary(features)
    real.update(images)
    measure.frechet_infinity(drawn, real)

Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewstep.measure.adherence import ClipScore, mean_score, prompts_digest
    from fewstep.measure.backbones import backbone
    from fewstep.measure.converged import Converged, FunctionFlow, Goal, converge
    from fewstep.measure.counting import counted
    from fewstep.measure.features import FeatureId, Features, FunctionFeatures, PixelFeatures
    from fewstep.measure.figure import Difference, Figure, compare
    from fewstep.measure.frechet import frechet_distance, frechet_infinity
    from fewstep.measure.kernel import kernel_distance
    from fewstep.measure.latency import Cost, cost
    from fewstep.measure.moments import Moments
    from fewstep.measure.neighbours import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
    from fewstep.measure.spread import diversity
    from fewstep.measure.summary import Summary
    from fewstep.measure.trajectory import TrajectoryError, trajectory_error

_HOMES = {
    "adherence": ["ClipScore", "mean_score", "prompts_digest"],
    "backbones": ["backbone"],
    "converged": ["Converged", "FunctionFlow", "Goal", "converge"],
    "counting": ["counted"],
    "features": ["FeatureId", "Features", "FunctionFeatures", "PixelFeatures"],
    "figure": ["Difference", "Figure", "compare"],
    "frechet": ["frechet_distance", "frechet_infinity"],
    "kernel": ["kernel_distance"],
    "latency": ["Cost", "cost"],
    "moments": ["Moments"],
    "neighbours": ["DensityCoverage", "PrecisionRecall", "density_coverage", "precision_recall"],
    "spread": ["diversity"],
    "summary": ["Summary"],
    "trajectory": ["TrajectoryError", "trajectory_error"],
}
_HOME = {name: f"{__name__}.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
    "ClipScore",
    "Converged",
    "Cost",
    "DensityCoverage",
    "Difference",
    "FeatureId",
    "Features",
    "Figure",
    "FunctionFeatures",
    "FunctionFlow",
    "Goal",
    "Moments",
    "PixelFeatures",
    "PrecisionRecall",
    "Summary",
    "TrajectoryError",
    "backbone",
    "compare",
    "converge",
    "cost",
    "counted",
    "density_coverage",
    "diversity",
    "frechet_distance",
    "frechet_infinity",
    "kernel_distance",
    "mean_score",
    "precision_recall",
    "prompts_digest",
    "trajectory_error",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
