"""The report as one page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fewstep.optimization.trial import of_prompts, percent
from fewstep.tuning.page import STYLE

KEPT = "tr.own td { font-weight: 600 }"


def page_of(report: Mapping[str, Any]) -> str:
    """HTML of what `Report.to_json` gives."""
    model, plan, machine = report["model"], report["plan"], report["machine"]
    title = f"{model['name']}, optimised"
    facts = {
        "model": f"{model['name']}, weights {model['weights']}",
        "drawn by": f"{plan['sampler']} on {plan['grid']} in {plan['rows']} rows, guidance {plan['guidance']:g}",
        "machine": "{processor}, {threads} threads, {device}, torch {torch}".format(**machine),
        "allowed": f"a loss of {report['most_loss']:.2%}, looked at on {report['images']:,} images",
        "took": f"{report['seconds']:.0f} s" + (", and was cut by the time limit" if report["cut"] else ""),
    }
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}{KEPT}</style></head><body>
<h1>{escape(title)}</h1>
<p class="verdict">{escape(report["verdict"])}</p>
<h2>The whole, from prompts to pixels</h2>
<table><tr><th>images at once</th><th>before</th><th>after</th><th>times faster</th></tr>
{"".join(_total(one) for one in report["totals"])}</table>
<p>{_lost(report["loss"], report["adherence"])}</p>
<h2>What was tried</h2>
<table><tr><th>technique</th><th>on</th><th>times faster</th><th>error grows by</th><th>pays after</th><th></th></tr>
{"".join(_trial(one) for one in report["trials"])}</table>
<p>Times faster is the median of turns in which both were drawn, one after the other. The error is the distance of
pictures to those of the converged solution from the same noise, that of the typical picture; the share by which it
grows is paired image by image. Intervals hold at 95%. What was compiled pays after so many images, where nothing
was compiled before.</p>
<h2>How</h2>
<table>{"".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items())}</table>
</body></html>
"""


def _total(one: Mapping[str, Any]) -> str:
    seconds = one["seconds"]
    cells = (one["batch"], f"{seconds['before']:.3g} s", f"{seconds['after']:.3g} s", _times(one["speed"]))
    return _row(cells)


def _trial(one: Mapping[str, Any]) -> str:
    pays = "" if one["pays"] is None else f"{one['pays']:,} images"
    cells = (
        one["technique"],
        one["on"],
        "" if one["speed"] is None else _times(one["speed"]),
        "" if one["loss"] is None else _share(one["loss"]),
        pays,
        one["why"],
    )
    return _row(cells, " class='own'" if one["kept"] else "")


def _row(cells: Sequence[Any], mark: str = "") -> str:
    return f"<tr{mark}>{''.join(f'<td>{escape(str(cell))}</td>' for cell in cells)}</tr>\n"


def _times(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.2f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _share(figure: Mapping[str, Any]) -> str:
    return f"{percent(figure['value'])} ({percent(figure['low'])} to {percent(figure['high'])})"


def _lost(error: Mapping[str, Any] | None, adherence: Mapping[str, Any] | None) -> str:
    if error is None:
        return "Nothing was kept."
    words = f"the error of the typical picture grows by {_share(error)}"
    if adherence is not None:
        words = f"{of_prompts(adherence['value'], adherence['high'], adherence['n'])}; {words}"
    return f"{words[0].upper()}{words[1:]}."
