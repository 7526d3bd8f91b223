"""Figure 4: a bar for each strategy, as long as the evaluations it needs."""

from __future__ import annotations

from matplotlib.figure import Figure

from fewstep.show.draw.style import FAINT, INK, PALE, colour, sheet
from fewstep.show.effort import Effort


def figure_of(found: Effort) -> Figure:
    """The cheapest above; one that does not get there is pale, as long as the limit."""
    under = (
        f"Least network evaluations for an error of {found.target:g} (root mean square distance from the exact data, "
        f"{found.noises} noises, {found.schedule.kind} schedule)."
    )
    figure = sheet(8.6, 0.36 * len(found.needs) + 2.0, found.finding, under)
    axes = figure.subplots()
    for y, need in enumerate(found.needs):
        ink = PALE if need.nfe is None else colour(0) if y == 0 else colour(5)
        axes.barh(y, need.nfe or found.limit, left=0, color=ink, height=0.68)
        words = f"more than {found.limit}: error {need.error:.2g}" if need.nfe is None else f"{need.nfe}"
        axes.annotate(words, (need.nfe or found.limit, y), (5, 0), textcoords="offset points", va="center", color=INK)
    longest = max(need.nfe or found.limit for need in found.needs)
    room = 1.4 if found.needs[-1].nfe is None else 1.1
    axes.set(yticks=range(len(found.needs)), yticklabels=[need.name for need in found.needs], xlim=(0, longest * room))
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_xlabel("network evaluations for an image (NFE)", color=FAINT)
    return figure
