"""Which sampler and how many steps for a budget: chosen among what was measured on the user's own model.

answer = choose(fewstep.load("digits"), "digits", Budget(nfe=8))
print(answer.lines.command)
"""

from __future__ import annotations

from fewstep.benchmark.choice.advice import ADVICE, Advice, advice_for
from fewstep.benchmark.choice.answer import Answer, choose
from fewstep.benchmark.choice.candidate import Candidate
from fewstep.benchmark.choice.lines import Lines, lines_of
from fewstep.benchmark.choice.missing import Need, lacking
from fewstep.benchmark.choice.planner import Budget, Choice, decide
from fewstep.benchmark.choice.results import Results, gather

__all__ = [
    "ADVICE",
    "Advice",
    "Answer",
    "Budget",
    "Candidate",
    "Choice",
    "Lines",
    "Need",
    "Results",
    "advice_for",
    "choose",
    "decide",
    "gather",
    "lacking",
    "lines_of",
]
