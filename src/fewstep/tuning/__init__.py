"""Plans that are tuned to a model: search, times by dynamic programming, weights and times by gradient.

plan, certificate = tune(fewstep.load("digits"), rows=6)
plan, certificate = tune(Problem.of(denoiser, shape=(1, 8, 8)), rows=6)
"""

from __future__ import annotations

from fewstep.tuning.budget import RowBudget, budget_of
from fewstep.tuning.certificate import Certificate, Compared, ConfidenceInterval
from fewstep.tuning.problem import Problem, Solutions
from fewstep.tuning.settings import Sizes, TuningSettings
from fewstep.tuning.subject import problem_at
from fewstep.tuning.tuning import Tuned, Uncertified, tune
from fewstep.tuning.words import CUT

__all__ = [
    "CUT",
    "Certificate",
    "Compared",
    "ConfidenceInterval",
    "Problem",
    "RowBudget",
    "Sizes",
    "Solutions",
    "Tuned",
    "TuningSettings",
    "Uncertified",
    "budget_of",
    "problem_at",
    "tune",
]
