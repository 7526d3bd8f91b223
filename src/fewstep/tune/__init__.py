"""Plans that are tuned to a model: search, times by dynamic programming, weights and times by gradient.

problem = Problem.of(denoiser, shape=(1, 8, 8))
plan, certificate = tune(problem, nfe=6)
"""

from __future__ import annotations

from fewstep.tune.certificate import Certificate, Compared, Interval
from fewstep.tune.problem import Known, Problem
from fewstep.tune.sizes import Sizes
from fewstep.tune.tuning import Tuned, Uncertified, tune

__all__ = ["Certificate", "Compared", "Interval", "Known", "Problem", "Sizes", "Tuned", "Uncertified", "tune"]
