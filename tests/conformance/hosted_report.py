"""The part of docs/conformance.md about schedulers that a `PlanScheduler` takes the place of."""

from __future__ import annotations

import math
from collections import Counter
from functools import cache

from .hosted import BAR, Outcome, outcomes
from .hosted_cases import STEPS, UNREAD, cases, schedulers
from .hosted_departures import NAMED, named

BEGIN, END = "<!-- begin hosted -->\n", "<!-- end hosted -->\n"

_INTRO = """\
## Set as a user sets them

`PlanScheduler.from_config(scheduler)` takes the place of a scheduler of diffusers. Here both run on the same network,
which sees the times that it is told, from the same start with the same noise: every setting of every class at
{steps} steps, one at a time and some together, and every argument of `set_timesteps` and `step`. diffusers
computes in float64. The results are equal where they differ by less than {bar} of the largest value. Where diffusers
itself fails with a setting, or is not finite, there is nothing to compare. The multistep schedulers and KDPM2 tell
whole times: there `round_times=True` is given.

**{equal} of {total} runs are equal.** The others are named below the table.

"""

_RUNS = """
Two more quirks belong to whole runs:

- **LMSDiscrete with a late start.** A run that begins in the middle (`set_begin_index`, as image-to-image does) takes
  the weights of a full history from the first step on, and has none. fewstep begins with order 1.
- **SASolver draws noise in every step**, also where `tau_func` is 0 and the noise is not used. With one generator the
  later steps therefore have other noise than in fewstep, which draws what it uses. The pictures are equally likely.

The noise schedule is always that of the host. diffusers' own `from_config` gives another class that class's default
betas where the host had its own by default.
"""


@cache
def found(name: str) -> tuple[Outcome, ...]:
    """All outcomes of one class."""
    return tuple(each for case in cases(name) for each in outcomes(case))


def section() -> str:
    """The part of the page, between its marks."""
    rows, uses, total, equal = [], Counter[str](), 0, 0
    for name, known in schedulers().items():
        kinds: Counter[str] = Counter()
        for each in found(name):
            kinds[each.kind] += 1
            if (reason := named(each)) is not None:
                uses[reason.name] += 1
        rest = [kinds["apart"], kinds["refused"], kinds["broken"]]
        cells = [name, str(len(known.keys() - UNREAD)), str(kinds["equal"]), *(str(n) if n else "" for n in rest)]
        rows.append("| " + " | ".join(cells) + " |\n")
        total, equal = total + kinds.total() - kinds["broken"], equal + kinds["equal"]
    words = ", ".join(map(str, STEPS[:-1])) + f" and {STEPS[-1]}"
    text = BEGIN + _INTRO.format(steps=words, bar=f"1e{round(math.log10(BAR))}", equal=equal, total=total)
    text += "| class | settings | equal | apart, named | refused, named | diffusers fails |\n" + "| --- " * 6 + "|\n"
    text += "".join(rows)
    for refused, head in ((False, "Where the two draw differently:"), (True, "What a `PlanScheduler` refuses:")):
        text += f"\n{head}\n\n"
        for each in NAMED:
            if each.refused == refused:
                text += f"- **{each.name}** ({uses[each.name]} runs). {each.reason}\n"
    return text + _RUNS + "\n" + END


def without(page: str) -> str:
    """A page without its section."""
    before, rest = page.split(BEGIN)
    return before + rest.split(END)[1]
