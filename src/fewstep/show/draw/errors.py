"""Figure 2: error against evaluations, both logarithmic; the slope of a line is its order."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from fewstep.show.convergence import Convergence, Curve
from fewstep.show.draw.style import FAINT, INK, colour, dashes, marker, sheet


def figure_of(found: Convergence) -> Figure:
    """A line for each sampler; the legend gives the fitted order beside the theory's."""
    grids = sorted({c.strategy.grid for c in found.curves})
    under = (
        f"{found.noises} noises through the exact score of a mixture, {found.schedule.kind} schedule, grid "
        f"{' and '.join(grids)}. A line that falls p decades in one decade of evaluations is of order p; the "
        "legend gives the slope of the last points."
    )
    figure = sheet(8.6, 5.9, found.finding, under)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    axes.set_xlabel("network evaluations for an image (NFE)")
    axes.set_ylabel("distance from the exact solution (RMS, units of the data)")
    several = len(grids) > 1
    for i, curve in enumerate(found.curves):
        axes.plot(
            curve.nfe,
            curve.errors,
            color=colour(i),
            marker=marker(i),
            linestyle=dashes(i),
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            label=_label(curve, several),
        )
    counts = sorted({n for c in found.curves for n in c.nfe})
    ticks = [n for n in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192) if counts[0] <= n <= counts[-1]]
    axes.xaxis.set_major_locator(FixedLocator(ticks or [counts[0]]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
    legend = axes.legend(
        title="sampler: fitted order (theory)", loc="center left", bbox_to_anchor=(1.01, 0.5), alignment="left"
    )
    legend.get_title().set_color(FAINT)
    for text in legend.get_texts():
        text.set_color(INK)
    return figure


def _label(curve: Curve, with_grid: bool) -> str:
    theory = "" if curve.strategy.order is None else f" ({curve.strategy.order})"
    fitted = "no order" if curve.fitted is None else f"{curve.fitted:.2f}"
    return f"{curve.strategy.name}{', ' + curve.strategy.grid if with_grid else ''}: {fitted}{theory}"
