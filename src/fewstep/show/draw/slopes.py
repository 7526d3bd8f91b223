"""Figure 5: the slopes of the equation, its exact paths, and those in steps over them, a panel for each method."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fewstep.show.draw.style import FAINT, PALE, colour, marker, sheet
from fewstep.show.ode import Ode, Steps, slope

ARROWS = (25, 17)
"""Arrows along time and along x."""
ROOM = 2.0
"""How far outside the exact paths a path is still shown: with wide steps Euler leaves every picture."""


def figure_of(found: Ode) -> Figure:
    """A panel for each method."""
    under = (
        "dx/dt = -sin(x) t. Arrows: the slope at each place. Grey: the exact paths, tan(x/2) = tan(x(0)/2) "
        f"exp(-t^2/2). Dots: steps of {found.step:g}."
    )
    figure = sheet(9.4, 4.9, found.finding, under)
    panels = figure.subplots(1, len(found.methods), sharey=True)
    for i, (axes, method) in enumerate(zip(panels, found.methods, strict=True)):
        _panel(axes, found, method, i)
    panels[0].set_ylabel("x")
    return figure


def _panel(axes: Axes, found: Ode, method: Steps, index: int) -> None:
    low = max(min(method.x.min(), found.exact.min()), found.exact.min() - ROOM)
    high = min(max(method.x.max(), found.exact.max()), found.exact.max() + ROOM)
    t, x = np.meshgrid(np.linspace(0, found.times[-1], ARROWS[0]), np.linspace(low, high, ARROWS[1]))
    rise = slope(x, t)
    length = np.sqrt(1 + rise**2)
    axes.quiver(t, x, 1 / length, rise / length, color=PALE, angles="xy", pivot="mid", width=0.003, zorder=1)
    for start, exact, path in zip(found.starts, found.exact, method.x, strict=True):
        first = start == found.starts[0]
        axes.plot(found.times, exact, color=FAINT, linewidth=2.4, alpha=0.6, label="exact" if first else None)
        axes.plot(
            found.step_times,
            path,
            color=colour(index),
            marker=marker(index),
            markersize=4.5,
            linewidth=1.3,
            label=method.method if first else None,
            zorder=3,
        )
    margin = 0.06 * (high - low)
    axes.set(xlabel="t", ylim=(low - margin, high + margin))
    axes.set_title(f"{method.method}: {method.evaluations} evaluations, off by {method.error:.2g} at the end")
    axes.legend(loc="upper right")
