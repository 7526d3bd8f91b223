"""The rows of a folder as one page that needs nothing else: no script, no font and no file beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from fewstep.benchmark import plots
from fewstep.benchmark.commands import generate_command
from fewstep.benchmark.folder import Folder
from fewstep.benchmark.pareto import Front, Group, front_of, groups, ranked
from fewstep.benchmark.row import Run
from fewstep.benchmark.style import STYLE
from fewstep.files import write_whole

MOST_STRIPS = 8
"""Rows whose pictures are shown, evenly among those that no other beats."""
READ = ("adherence", "clip", "distance")
"""Figures that not every model has, with plots of their own."""


def write_page(folder: Folder, words: bool) -> None:
    """Write the page of all rows in the folder; `words`: whether the model takes prompts."""
    write_whole(folder.page, page_of(folder, words).encode())


def page_of(folder: Folder, words: bool = False) -> str:
    """HTML of the rows."""
    runs, model = folder.rows.runs, folder.model
    marks = plots.Marks.of(runs)
    title = f"{model.name}: {len(runs)} runs measured"
    sections = "".join(_group(folder, group, rows, marks, words) for group, rows in groups(runs).items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>Model <code>{escape(model.source)}</code>, digest <code>{escape(model.digest)}</code>. The error is the root mean
square distance to the converged solution from the same noise; quality is the share of its variance that is reached.
Evaluations are those of networks for one image, as counted; a guided row costs two. Intervals are 95%, of a bootstrap
over images. Seconds run from the noise to the picture.</p>
{sections or "<p>Nothing is measured yet.</p>"}
{_everything(runs)}
<h2>Where</h2>
{_machines(runs)}
<h2>Again</h2>
<p>These commands measured the rows. In another folder they measure them anew.</p>
<pre>{escape(chr(10).join(folder.commands))}</pre>
</body></html>
"""


def _group(folder: Folder, group: Group, rows: Sequence[Run], marks: plots.Marks, prompted: bool) -> str:
    front = front_of(rows)
    best = sorted((run for run in rows if run.key in front), key=lambda run: (run.evaluations, _error(run)))
    known = ranked(rows)
    evaluations = ("network evaluations an image", lambda run: run.evaluations)
    seconds = ("milliseconds an image", lambda run: 1e3 * run.seconds.value)
    drawn = [
        plots.scatter(known, marks, front.evaluations, evaluations, ("error", _error), figure="error"),
        plots.scatter(known, marks, front.seconds, seconds, ("error", _error), figure="error"),
    ]
    for name in READ:
        having = [run for run in rows if name in run.figures and not run.lost]
        drawn.append(
            plots.scatter(
                having,
                marks,
                (),
                evaluations,
                (name, lambda run, name=name: run.figures[name].value),
                logarithmic=False,
            )
        )
    left, read = len(rows) - len(known), _had(rows, READ)
    words = (
        f"<p>{left} rows draw noise on the way or lost images, so they have no error to compare.</p>" if left else ""
    )
    return f"""<h2>{escape(str(group))}</h2>
<p class="verdict">{escape(_verdict(best, front))}</p>
<div class="plots">{"".join(f"<figure>{svg}</figure>" for svg in drawn if svg)}</div>
{_legend(rows, marks)}{words}
<h3>What no other row beats</h3>
<div class="wide"><table>{_head(read)}{"".join(_row(run, read, front) for run in best)}</table></div>
{_strips(folder, best)}
<h3>Draw with them</h3>
<pre>{escape(chr(10).join(generate_command(run, folder.path, prompted) for run in best))}</pre>
"""


def _error(run: Run) -> float:
    return run.figures["error"].value


def _verdict(best: Sequence[Run], front: Front) -> str:
    rows = [run for run in best if run.key in front.evaluations]
    if not rows:
        return "No row has an error to compare."
    first, last = rows[0], rows[-1]
    words = f"The least error, {_error(last):.3g}, has {plots.name_of(last)} ({last.evaluations:g} evaluations)."
    most = next((run for run in rows if run.figures["quality"].value >= 0.99), None)
    if most is not None and most is not last:
        words += f" 99% of the variance are first reached by {plots.name_of(most)} ({most.evaluations:g})."
    if first is not last and first is not most:
        words += (
            f" In the fewest evaluations, {first.evaluations:g}, {plots.name_of(first)} has error {_error(first):.3g}."
        )
    return words


def _legend(rows: Sequence[Run], marks: plots.Marks) -> str:
    named = {run.sampler: run for run in rows}
    samplers = "".join(
        f"<li>{plots.sign('circle', marks.colour(run))}{escape(name)}</li>" for name, run in named.items()
    )
    shaped = {run.grid: run for run in rows}
    grids = "".join(f"<li>{plots.sign(marks.shape(run), 'plain')}{escape(name)}</li>" for name, run in shaped.items())
    hollow = "<li>hollow: not float32</li>" if any(run.precision != "float32" for run in rows) else ""
    return f"<ul class='legend'>{samplers}</ul><ul class='legend'>{grids}{hollow}<li>ringed: beaten by none</li></ul>"


def _had(rows: Sequence[Run], names: Iterable[str]) -> list[str]:
    return [name for name in names if any(name in run.figures for run in rows)]


def _head(figures: Sequence[str]) -> str:
    names = ["sampler", "grid", "steps", "evaluations", "error", "quality", *figures, "ms an image", "best in"]
    return f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>\n"


def _row(run: Run, figures: Sequence[str], front: Front) -> str:
    best = [name for name, keys in (("evaluations", front.evaluations), ("time", front.seconds)) if run.key in keys]
    precision = "" if run.precision == "float32" else f" in {run.precision}"
    tuned = " (tuned)" if run.kind == "tuned" else ""
    options = "".join(f" {name}={value}" for name, value in run.grid_options.items())
    cells = [run.sampler + tuned + precision, run.grid + options]
    numbers = [f"{run.steps}", f"{run.evaluations:g}", *(_figure(run, name) for name in ("error", "quality"))]
    numbers += [_figure(run, name) for name in figures]
    low, high = 1e3 * run.seconds.low, 1e3 * run.seconds.high
    numbers.append(f"{1e3 * run.seconds.value:.3g}<small> {low:.3g} to {high:.3g}</small>")
    lost = [f"{run.lost} lost"] if run.lost else []
    words = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return (
        f"<tr>{words}{''.join(f'<td class=n>{n}</td>' for n in numbers)}<td>{' and '.join([*best, *lost])}</td></tr>\n"
    )


def _figure(run: Run, name: str) -> str:
    if name not in run.figures:
        return ""
    figure = run.figures[name]
    return f"{figure.value:.4g}<small> {figure.low:.3g} to {figure.high:.3g}</small>"


def _strips(folder: Folder, best: Sequence[Run]) -> str:
    """Pictures of some rows from the same noise, the converged ones first."""
    some = (
        best
        if len(best) <= MOST_STRIPS
        else [best[round(i * (len(best) - 1) / (MOST_STRIPS - 1))] for i in range(MOST_STRIPS)]
    )
    references = dict.fromkeys(run.figures["error"].reference for run in some)
    shown = [(folder.picture(f"converged-{name}"), "converged") for name in references]
    shown += [(folder.picture(run.key), f"{plots.name_of(run)}, {run.evaluations:g} evaluations") for run in some]
    rows = "".join(_strip(path, words) for path, words in shown if path.is_file())
    return f"<h3>From the same noise</h3><div class='strips'>{rows}</div>" if rows else ""


def _strip(path: Path, words: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(words, quote=True)}" src="data:image/png;base64,{content}">'
    return f"<figure>{image}<figcaption>{escape(words)}</figcaption></figure>\n"


def _everything(runs: Sequence[Run]) -> str:
    if not runs:
        return ""
    tables = []
    for group, rows in groups(runs).items():
        front = front_of(rows)
        figures = _had(rows, ("typical", "psnr", "diversity", "saturation", *READ))
        body = "".join(
            _row(run, figures, front) for run in sorted(rows, key=lambda run: (run.evaluations, run.sampler))
        )
        tables.append(f"<h3>{escape(str(group))}</h3><div class='wide'><table>{_head(figures)}{body}</table></div>")
    return f"<h2>Everything</h2><details><summary>All {len(runs)} rows</summary>{''.join(tables)}</details>"


def _machines(runs: Sequence[Run]) -> str:
    rows = []
    for machine in dict.fromkeys(run.machine for run in runs):
        facts = f"{machine.device}; {machine.processor}, {machine.threads} threads; "
        facts += f"torch {machine.torch}, fewstep {machine.fewstep}"
        count = sum(run.machine == machine for run in runs)
        memory = _most(run.memory for run in runs if run.machine == machine)
        rows.append(f"<li>{escape(facts)}: {count} rows{memory}</li>")
    return f"<ul>{''.join(rows)}</ul>"


def _most(memory: Iterable[int | None]) -> str:
    known = [each for each in memory if each is not None]
    return f", at most {max(known) / 2**20:.0f} MiB beyond what was there" if known else ""
