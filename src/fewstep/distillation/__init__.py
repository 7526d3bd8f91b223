"""Distillation: a teacher's many evaluations become a student's few, one file a method.

from fewstep.distillation import Regression, Settings, distill

found = distill("digits", Regression(rows=1), "runs/one-step", settings=Settings(steps=800))
found.pipe([3, 1, 4])
"""

from fewstep.distillation.adversarial import Adversarial
from fewstep.distillation.consistency import Consistency
from fewstep.distillation.distill import Distilled, Watch, distill, forecast
from fewstep.distillation.dmd import DistributionMatching
from fewstep.distillation.endpoint import Endpoint
from fewstep.distillation.extraction import lora_of, rounded_of
from fewstep.distillation.fine_tuning import TWIN, FineTuned, Forecasts, Watches, fine_tune, fine_tuning_forecast
from fewstep.distillation.guidance import GuidanceInput
from fewstep.distillation.health import Checks, Health
from fewstep.distillation.keeping import Keep
from fewstep.distillation.lcm import LatentConsistency
from fewstep.distillation.lora import write_adapted
from fewstep.distillation.meanflow import MeanFlow
from fewstep.distillation.methods import METHODS, PRESETS
from fewstep.distillation.own import is_path, method_class
from fewstep.distillation.phased import Phased
from fewstep.distillation.policy import Policy
from fewstep.distillation.progressive import Progressive
from fewstep.distillation.reflow import Reflow
from fewstep.distillation.regression import Regression
from fewstep.distillation.report import Report
from fewstep.distillation.scm import ContinuousConsistency
from fewstep.distillation.source import Measuring, Source
from fewstep.distillation.tuned import TunedStudent, tune_student
from fewstep.distillation.tuned_certificate import StudentCertificate
from fewstep.training import Adapter, Settings

__all__ = [
    "METHODS",
    "PRESETS",
    "TWIN",
    "Adapter",
    "Adversarial",
    "Checks",
    "Consistency",
    "ContinuousConsistency",
    "Distilled",
    "DistributionMatching",
    "Endpoint",
    "FineTuned",
    "Forecasts",
    "GuidanceInput",
    "Health",
    "Keep",
    "LatentConsistency",
    "MeanFlow",
    "Measuring",
    "Phased",
    "Policy",
    "Progressive",
    "Reflow",
    "Regression",
    "Report",
    "Settings",
    "Source",
    "StudentCertificate",
    "TunedStudent",
    "Watch",
    "Watches",
    "distill",
    "fine_tune",
    "fine_tuning_forecast",
    "forecast",
    "is_path",
    "lora_of",
    "method_class",
    "rounded_of",
    "tune_student",
    "write_adapted",
]
