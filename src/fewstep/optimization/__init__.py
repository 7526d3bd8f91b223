"""Cheaper calls, by measurement: every way that this machine has, what each is worth, and a model made of what pays."""

from __future__ import annotations

from fewstep.optimization.optimize import Budget, Optimized, optimize
from fewstep.optimization.report import Report
from fewstep.optimization.technique import TECHNIQUES, Technique
from fewstep.optimization.trial import Trial

__all__ = ["TECHNIQUES", "Budget", "Optimized", "Report", "Technique", "Trial", "optimize"]
