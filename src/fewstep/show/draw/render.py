"""Numbers in, bytes of a PNG or an SVG out: the same numbers give the same bytes."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewstep.core.errors import InvalidInput
from fewstep.show.consistency import ConsistencyMap
from fewstep.show.convergence import Convergence
from fewstep.show.distillation import Distillation
from fewstep.show.effort import Effort
from fewstep.show.levels import Levels
from fewstep.show.ode import Ode
from fewstep.show.trajectories import Trajectories

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Result = Trajectories | Convergence | Levels | Effort | Ode | Distillation | ConsistencyMap

SUFFIXES = (".svg", ".png")
DPI = 110


def need_matplotlib() -> None:
    """Raise `InvalidInput` where matplotlib is not there."""
    try:
        importlib.import_module("matplotlib")
    except ImportError as error:
        raise InvalidInput(
            f"drawing needs matplotlib ({error}): pip install 'fewstep[show]', or ask for the numbers alone "
            "(--no-figure on the command line)"
        ) from error


def check_suffix(path: str | Path) -> str:
    """The suffix of `path`, in small letters; raises `InvalidInput` where no picture of it can be drawn."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise InvalidInput(f"a figure is written as {' or '.join(SUFFIXES)}, got {str(path)!r}: give such a name")
    return suffix


def picture(result: Result, suffix: str = ".svg") -> bytes:
    """The figure of `result` as the content of a file.

    Raises `InvalidInput` where matplotlib is not installed or the suffix is neither .svg nor .png.
    """
    suffix = check_suffix(f"figure{suffix}")
    need_matplotlib()
    import matplotlib

    from fewstep.show.draw.style import STYLE

    style: Any = STYLE
    with matplotlib.rc_context(style):
        figure = _figure(result)
        file = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None} if suffix == ".svg" else {"Software": None}
        figure.savefig(file, format=suffix[1:], dpi=DPI, metadata=metadata)
    return file.getvalue()


def _figure(result: Result) -> Figure:
    match result:
        case Trajectories():
            from fewstep.show.draw.paths import figure_of
        case Convergence():
            from fewstep.show.draw.errors import figure_of
        case Levels():
            from fewstep.show.draw.curves import figure_of
        case Effort():
            from fewstep.show.draw.bars import figure_of
        case Ode():
            from fewstep.show.draw.slopes import figure_of
        case Distillation():
            from fewstep.show.draw.rows import figure_of
        case ConsistencyMap():
            from fewstep.show.draw.maps import figure_of
    return figure_of(result)  # type: ignore[arg-type]
