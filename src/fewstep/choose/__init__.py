"""Which sampler and how many steps for a budget: chosen among what was measured on the user's own model.

answer = choose(fewstep.load("digits"), "digits", Budget(nfe=8))
print(answer.lines.command)
"""

from __future__ import annotations

from fewstep.choose.advice import ADVICE, Advice, advice_for
from fewstep.choose.answer import Answer, choose
from fewstep.choose.candidate import Candidate
from fewstep.choose.lines import Lines, lines_of
from fewstep.choose.missing import Need, lacking
from fewstep.choose.planner import Budget, Choice, decide
from fewstep.choose.results import Results, gather

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
