"""The results in a folder as one page that needs nothing else: no script, no font and no file beside it."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from fewstep.benchmark import plots
from fewstep.benchmark.commands import generate_command
from fewstep.benchmark.folder import Folder
from fewstep.benchmark.glossary import meaning
from fewstep.benchmark.measured import Measured
from fewstep.benchmark.pareto import ComparisonGroup, Front, best_of, error_of, front_of, groups, ranked
from fewstep.benchmark.style import STYLE
from fewstep.files import write_whole

MOST_STRIPS = 8
"""Plans whose pictures are shown, evenly among those that no other beats."""
READ = ("adherence", "clip", "distance")
"""Figures that not every model has, with plots of their own."""
NFE, TIME = "network evaluations of an image (NFE)", "milliseconds an image"


def write_page(folder: Folder, words: bool) -> None:
    """Write the page of all results in the folder; `words`: whether the model takes prompts."""
    write_whole(folder.page, page_of(folder, words).encode())


def page_of(folder: Folder, words: bool = False) -> str:
    """HTML of the results."""
    results, model = folder.results.results, folder.model
    marks = plots.Marks.of(results)
    title = f"{model.name}: {len(results)} plans measured"
    sections = "".join(_group(folder, group, alike, marks, words) for group, alike in groups(results).items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>Model <code>{escape(model.source)}</code>, digest <code>{escape(model.digest)}</code>. The error is the root mean
square distance to the converged solution from the same noise; quality is the share of its variance that is reached.
Rows are those of the plan; NFE are the evaluations of networks for one image, as counted: a guided row costs two.
Intervals are 95%, of a bootstrap over images. Seconds run from the noise to the picture.</p>
{_glossary(results)}
{sections or "<p>Nothing is measured yet.</p>"}
{_everything(results)}
<h2>Where</h2>
{_machines(results)}
<h2>Again</h2>
<p>These commands measured the plans. In another folder they measure them anew.</p>
<pre>{escape(chr(10).join(folder.commands))}</pre>
</body></html>
"""


def _group(
    folder: Folder, group: ComparisonGroup, results: Sequence[Measured], marks: plots.Marks, prompted: bool
) -> str:
    front, known = front_of(results), ranked(results)
    best = best_of(results, front)
    drawn = [
        plots.scatter(known, marks, front.nfe, (NFE, _nfe), ("error", error_of), figure="error"),
        plots.scatter(known, marks, front.seconds, (TIME, _milliseconds), ("error", error_of), figure="error"),
    ]
    for name in READ:
        having = [one for one in results if name in one.figures and not one.lost]
        up = (name, lambda one, name=name: one.figures[name].value)
        drawn.append(plots.scatter(having, marks, (), (NFE, _nfe), up, logarithmic=False))
    left, read = len(results) - len(known), _had(results, READ)
    words = f"<p>{left} plans draw noise on the way or lost images, so they have no error to compare.</p>"
    return f"""<h2>{escape(str(group))}</h2>
<p class="verdict">{escape(_verdict(best, front))}</p>
<div class="plots">{"".join(f"<figure>{svg}</figure>" for svg in drawn if svg)}</div>
{_legend(results, marks)}{words if left else ""}
<h3>What no other plan beats</h3>
<div class="wide"><table>{_head(read)}{"".join(_line(one, read, front) for one in best)}</table></div>
{_strips(folder, best)}
<h3>Draw with them</h3>
<pre>{escape(chr(10).join(generate_command(one, folder.path, prompted) for one in best))}</pre>
"""


def _nfe(one: Measured) -> float:
    return one.nfe


def _milliseconds(one: Measured) -> float:
    return 1e3 * one.seconds.value


def _verdict(best: Sequence[Measured], front: Front) -> str:
    known = [one for one in best if one.key in front.nfe]
    if not known:
        return "No plan has an error to compare."
    first, last = known[0], known[-1]
    words = f"The least error, {error_of(last):.3g}, has {plots.name_of(last)} (NFE {last.nfe:g})."
    most = next((one for one in known if one.figures["quality"].value >= 0.99), None)
    if most is not None and most is not last:
        words += f" 99% of the variance are first reached by {plots.name_of(most)} (NFE {most.nfe:g})."
    if first is not last and first is not most:
        words += f" At the least NFE, {first.nfe:g}, {plots.name_of(first)} has error {error_of(first):.3g}."
    return words


def _legend(results: Sequence[Measured], marks: plots.Marks) -> str:
    coloured = {one.plan.sampler: plots.sign(plots.CIRCLE, marks.colour(one)) for one in results}
    shaped = {one.plan.grid: plots.sign(marks.shape(one), "plain") for one in results}
    samplers, grids = (
        "".join(f"<li>{sign}{escape(name)}</li>" for name, sign in signs.items()) for signs in (coloured, shaped)
    )
    hollow = "<li>hollow: not float32</li>" if any(one.precision != "float32" for one in results) else ""
    return f"<ul class='legend'>{samplers}</ul><ul class='legend'>{grids}{hollow}<li>ringed: beaten by none</li></ul>"


def _had(results: Sequence[Measured], names: Iterable[str]) -> list[str]:
    return [name for name in names if any(name in one.figures for one in results)]


def _head(figures: Sequence[str]) -> str:
    names = ["sampler", "grid", "steps", "rows", "NFE", "error", "quality", *figures, "ms an image", "best in"]
    return f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>\n"


def _line(one: Measured, figures: Sequence[str], front: Front) -> str:
    plan = one.plan
    precision = "" if one.precision == "float32" else f" in {one.precision}"
    tuned = " (tuned)" if plan.kind == "tuned" else ""
    options = "".join(f" {name}={value}" for name, value in plan.grid_options.items())
    words = [plan.sampler + tuned + precision, plan.grid + options]
    numbers = [f"{plan.steps}", f"{plan.rows}", f"{one.nfe:g}"]
    numbers += [_figure(one, name) for name in ("error", "quality", *figures)]
    low, high = 1e3 * one.seconds.low, 1e3 * one.seconds.high
    numbers.append(f"{_milliseconds(one):.3g}<small> {low:.3g} to {high:.3g}</small>")
    best = [name for name, keys in (("NFE", front.nfe), ("time", front.seconds)) if one.key in keys]
    best += [f"{one.lost} lost"] if one.lost else []
    cells = [f"<td>{escape(word)}</td>" for word in words] + [f"<td class=n>{number}</td>" for number in numbers]
    return f"<tr>{''.join(cells)}<td>{' and '.join(best)}</td></tr>\n"


def _figure(one: Measured, name: str) -> str:
    if name not in one.figures:
        return ""
    figure = one.figures[name]
    return f"{figure.value:.4g}<small> {figure.low:.3g} to {figure.high:.3g}</small>"


def _strips(folder: Folder, best: Sequence[Measured]) -> str:
    """Pictures of some plans from the same noise, the converged ones first."""
    last = len(best) - 1
    some = best if last < MOST_STRIPS else [best[round(i * last / (MOST_STRIPS - 1))] for i in range(MOST_STRIPS)]
    references = dict.fromkeys(one.figures["error"].reference for one in some)
    shown = [(folder.picture(f"converged-{name}"), "converged") for name in references]
    shown += [(folder.picture(one.key), f"{plots.name_of(one)}, NFE {one.nfe:g}") for one in some]
    strips = "".join(_strip(path, words) for path, words in shown if path.is_file())
    return f"<h3>From the same noise</h3><div class='strips'>{strips}</div>" if strips else ""


def _strip(path: Path, words: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(words, quote=True)}" src="data:image/png;base64,{content}">'
    return f"<figure>{image}<figcaption>{escape(words)}</figcaption></figure>\n"


def _everything(results: Sequence[Measured]) -> str:
    if not results:
        return ""
    tables = []
    for group, alike in groups(results).items():
        front = front_of(alike)
        figures = _had(alike, ("typical", "psnr", "diversity", "saturation", *READ))
        ordered = sorted(alike, key=lambda one: (one.nfe, one.plan.sampler))
        lines = "".join(_line(one, figures, front) for one in ordered)
        tables.append(f"<h3>{escape(str(group))}</h3><div class='wide'><table>{_head(figures)}{lines}</table></div>")
    return f"<h2>Everything</h2><details><summary>All {len(results)} plans</summary>{''.join(tables)}</details>"


def _glossary(results: Sequence[Measured]) -> str:
    """What the figures mean that some plan has."""
    means = meaning({name for one in results for name in one.figures})
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(words)}</td></tr>\n" for name, words in means.items())
    return f"<details><summary>What the figures mean</summary><table>{rows}</table></details>" if rows else ""


def _machines(results: Sequence[Measured]) -> str:
    items = []
    for machine in dict.fromkeys(one.machine for one in results):
        own = [one for one in results if one.machine == machine]
        memory = max((one.memory for one in own if one.memory is not None), default=None)
        words = f"{machine.device}; {machine.processor}, {machine.threads} threads; "
        words += f"torch {machine.torch}, fewstep {machine.fewstep}: {len(own)} plans"
        words += "" if memory is None else f", at most {memory / 2**20:.0f} MiB beyond what was there"
        items.append(f"<li>{escape(words)}</li>")
    return f"<ul>{''.join(items)}</ul>"
