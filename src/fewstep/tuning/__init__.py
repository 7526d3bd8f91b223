"""Plans that are tuned to a model: search, times by dynamic programming, weights and times by gradient.

problem = Problem.of(denoiser, shape=(1, 8, 8))
plan, certificate = tune(problem, nfe=6)
"""

from __future__ import annotations

from fewstep.tuning.certificate import Certificate, Compared, Interval
from fewstep.tuning.problem import Known, Problem
from fewstep.tuning.sizes import Sizes
from fewstep.tuning.tuning import Tuned, Uncertified, tune

__all__ = ["Certificate", "Compared", "Interval", "Known", "Problem", "Sizes", "Tuned", "Uncertified", "tune"]
