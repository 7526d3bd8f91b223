"""Options on plans and noise schedules that are not fields of a drawing."""

from __future__ import annotations

from fewstep.cli.headings import SAMPLER, option
from fewstep.cli.values import ScheduleName

FORCE = option(
    "--force",
    is_flag=True,
    heading=SAMPLER,
    help="Accept a plan that was tuned for another model.",
)
NOISE_SCHEDULE = option(
    "--schedule",
    type=ScheduleName(),
    default="linear",
    heading=SAMPLER,
    help="The noise schedule: linear, scaled_linear, cosine, edm or flow, with parameters as in flow:shift=3.",
)
