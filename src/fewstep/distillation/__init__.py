"""Distillation: a teacher's many evaluations become a student's few, one file a method.

from fewstep.distillation import Regression, Settings, distill

found = distill("digits", Regression(rows=1), "runs/one-step", settings=Settings(steps=800))
found.pipe([3, 1, 4])
"""

from fewstep.distillation.distill import Distilled, Watch, distill, forecast
from fewstep.distillation.extraction import lora_of, rounded_of
from fewstep.distillation.fine_tuning.keeping import Keep
from fewstep.distillation.fine_tuning.tune import TWIN, FineTuned, Forecasts, Watches, fine_tune, fine_tuning_forecast
from fewstep.distillation.judging.health import Checks, Health
from fewstep.distillation.judging.report import Report
from fewstep.distillation.lora import write_adapted
from fewstep.distillation.methods.adversarial import Adversarial
from fewstep.distillation.methods.by_name import METHODS, PRESETS
from fewstep.distillation.methods.consistency import Consistency
from fewstep.distillation.methods.dmd import DistributionMatching
from fewstep.distillation.methods.endpoint import Endpoint
from fewstep.distillation.methods.guidance import GuidanceInput
from fewstep.distillation.methods.lcm import LatentConsistency
from fewstep.distillation.methods.meanflow import MeanFlow
from fewstep.distillation.methods.own import is_path, method_class
from fewstep.distillation.methods.phased import Phased
from fewstep.distillation.methods.policy import Policy
from fewstep.distillation.methods.progressive import Progressive
from fewstep.distillation.methods.reflow import Reflow
from fewstep.distillation.methods.regression import Regression
from fewstep.distillation.methods.scm import ContinuousConsistency
from fewstep.distillation.plan_search.certificate import StudentCertificate
from fewstep.distillation.plan_search.tune import TunedStudent, tune_student
from fewstep.distillation.source import Measuring, Source
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
