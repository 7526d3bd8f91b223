"""The certificate as one page that needs nothing else: no script, no font, no picture from elsewhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from fewstep.tuning import words

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 54rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.verdict { background: #eef4ff; border-left: 4px solid #3867d6; padding: .8rem 1rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .3rem .8rem .3rem 0 }
th { border-bottom: 1px solid #c9d1d9; font-weight: 600 } td.n { text-align: right; font-variant-numeric: tabular-nums }
.bar { background: #3867d6; height: .7rem; border-radius: 2px } .own .bar { background: #20a464 }
code { background: #f2f4f7; padding: .1rem .3rem }
figure { margin: .6rem 0 } figure img { max-width: 100%; image-rendering: pixelated } figcaption { color: #59636e }
@media (prefers-color-scheme: dark) {
  body { background: #14171a; color: #dfe3e8 } .verdict, code { background: #1f2730 }
}
"""


def page_of(certificate: Mapping[str, Any], pictures: Mapping[str, bytes] | None = None) -> str:
    """HTML of what `Certificate.to_json` gives, and of PNG files by what drew them."""
    model, seconds = certificate["model"], certificate["seconds"]
    cost = f"at {certificate['rows']} rows"
    if 0 in (certificate["factors"] or ()):
        cost = f"at the cost of {certificate['rows']} guided rows"
    title = f"Tuned plan for {model['name']} {cost}"
    compared = certificate["compared"]
    judged, other = ("typical", "rmse") if certificate["objective"] == "psnr" else ("rmse", "typical")
    heads = {"rmse": "error", "typical": "typical image"}
    most = max(one[judged]["value"] or 0 for one in compared) or 1
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p class="verdict">{escape(certificate["verdict"])}</p>
<h2>Compared on {certificate["images"]["held_out"]} images of held-out noise</h2>
<table><tr><th>plan</th><th></th><th>rows</th><th>evaluations</th><th>images</th><th>{heads[judged]}</th>
<th>{certificate["confidence"]:.0%} interval</th><th>{heads[other]}</th><th></th></tr>
{"".join(_row(one, judged, other, most, one["digest"] == certificate["plan"]) for one in compared)}
</table>
<p>The error is the root mean square distance to the converged solution from the same noise
({escape(str(certificate["teacher"]["sampler"]))} in {certificate["teacher"]["rows"]} rows, itself within about
{_number(certificate["teacher"]["error"])}), over all images; that of the typical image is the geometric mean over
images, the one that goes with their mean PSNR. The plan was chosen by the {heads[judged]}. Intervals are a bootstrap
over images; that of a gain chooses the best untuned sampler in each draw anew. Samplers that are far behind on the
first images are not measured on the others. Times less error is the error of the
other plan divided by that of this one: 2 times less is half the error.</p>
{_missing(certificate["rivals"]["missing"])}
{_pictures(pictures or {})}
{_elsewhere(certificate["elsewhere"])}
<h2>What it took</h2>
<table>{"".join(_pair(name, value) for name, value in words.timed(seconds))}</table>
<h2>How</h2>
<table>{"".join(_pair(name, value) for name, value in _facts(certificate))}</table>
</body></html>
"""


def _row(one: Mapping[str, Any], judged: str, other: str, most: float, own: bool) -> str:
    error = one[judged]
    width = 100 * min(1.0, (error["value"] or most) / most)
    options = ", ".join(f"{key} {value}" for key, value in one["grid_options"].items())
    name = f"{one['sampler']} on {one['grid']}" + (f" ({options})" if options else "")
    interval = f"{_number(error['low'])} to {_number(error['high'])}"
    cells = f"<td>{escape(name)}</td><td>{escape(one['kind'])}</td><td class='n'>{one['rows']}</td>"
    cells += f"<td class='n'>{one['nfe']:g}</td><td class='n'>{one['images']}</td>"
    cells += f"<td class='n'>{_number(error['value'])}</td><td class='n'>{interval}</td>"
    cells += f"<td class='n'>{_number(one[other]['value'])}</td>"
    mark = " class='own'" if own else ""
    return f"<tr{mark}>{cells}<td style='width:25%'><div class='bar' style='width:{width:.1f}%'></div></td></tr>\n"


def _missing(names: Sequence[str]) -> str:
    """The rivals that there was no time to measure."""
    return f"<p>Not measured, as there was no time: {escape(', '.join(names))}.</p>" if names else ""


def _pictures(pictures: Mapping[str, bytes]) -> str:
    """Rows of the same images, each drawn in another way."""
    if not pictures:
        return ""
    rows = "".join(
        f"<figure><img alt='{escape(name)}' src='data:image/png;base64,{b64encode(png).decode()}'>"
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, png in pictures.items()
    )
    return f"<h2>The first images of held-out noise</h2>{rows}"


def _elsewhere(figures: Mapping[str, Any]) -> str:
    if not figures:
        return ""
    rows = "".join(
        _pair(name, f"{_number(one['value'])} ({_number(one['low'])} to {_number(one['high'])})")
        for name, one in figures.items()
    )
    return f"<h2>Under other settings: times less error than the best untuned sampler</h2><table>{rows}</table>"


def _facts(certificate: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    yield "plan", certificate["plan"]
    yield "model", f"{certificate['model']['name']}, digest {certificate['model']['digest'] or 'none'}"
    yield "settings", _listed(certificate["settings"])
    yield "images", words.used(certificate["images"])
    yield "search", words.searched(certificate["search"])
    if certificate["learning"]:
        yield "learning", words.learned(certificate["learning"])
    yield "machine", _listed(certificate["machine"])
    if certificate["factors"]:
        yield "guidance by row, of its excess over 1", ", ".join(f"{r:.2f}" for r in certificate["factors"])
    yield "schedule", certificate["schedule"]
    yield "seed", certificate["seed"]
    yield "versions", f"fewstep {certificate['fewstep']}, torch {certificate['torch']}"
    if certificate["stopped"]:
        yield "stopped", certificate["stopped"]


def _listed(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in facts.items()) or "none"


def _pair(name: str, value: Any) -> str:
    return f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>\n"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.3g}"
