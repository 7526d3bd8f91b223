"""Measurements of plans and models: what a sampler does, and how good it is.

from fewstep import measure

solution = measure.Converged.solve(denoiser, (16, 1, 8, 8))
error = measure.trajectory_error(plan, denoiser, solution)
real, drawn = measure.Summary(features), measure.Summary(features)
real.update(images)
measure.frechet_infinity(drawn, real)
"""

from __future__ import annotations

from fewstep.measure.adherence import ClipScore, mean_score, prompts_digest
from fewstep.measure.backbones import backbone
from fewstep.measure.converged import Converged, Flow, Goal, converge
from fewstep.measure.counting import counted
from fewstep.measure.features import FeatureId, Features, FunctionFeatures, PixelFeatures
from fewstep.measure.figure import Bootstrap, Difference, Figure, compare
from fewstep.measure.frechet import frechet_distance, frechet_infinity
from fewstep.measure.kernel import kernel_distance
from fewstep.measure.latency import Cost, cost
from fewstep.measure.moments import Moments
from fewstep.measure.neighbours import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from fewstep.measure.spread import diversity
from fewstep.measure.summary import Summary
from fewstep.measure.trajectory import TrajectoryError, trajectory_error

__all__ = [
    "Bootstrap",
    "ClipScore",
    "Converged",
    "Cost",
    "DensityCoverage",
    "Difference",
    "FeatureId",
    "Features",
    "Figure",
    "Flow",
    "FunctionFeatures",
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
