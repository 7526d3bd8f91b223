"""Distillation: a teacher's many evaluations become a student's few, one file a method.

from fewstep.distillation import Regression, Settings, distill

found = distill("digits", Regression(rows=1), "runs/one-step", settings=Settings(steps=800))
found.pipe([3, 1, 4])
"""

from fewstep.distillation.consistency import Consistency
from fewstep.distillation.distill import Distilled, Source, Watch, distill
from fewstep.distillation.extraction import lora_of
from fewstep.distillation.guidance import GuidanceInput
from fewstep.distillation.lcm import LatentConsistency
from fewstep.distillation.lora import write_adapted
from fewstep.distillation.progressive import Progressive
from fewstep.distillation.reflow import Reflow
from fewstep.distillation.regression import Regression
from fewstep.distillation.report import Report
from fewstep.training import Adapter, Settings

METHODS = {
    method.name: method for method in (Regression, Progressive, GuidanceInput, Consistency, LatentConsistency, Reflow)
}
"""The methods by name."""

__all__ = [
    "METHODS",
    "Adapter",
    "Consistency",
    "Distilled",
    "GuidanceInput",
    "LatentConsistency",
    "Progressive",
    "Reflow",
    "Regression",
    "Report",
    "Settings",
    "Source",
    "Watch",
    "distill",
    "lora_of",
    "write_adapted",
]
