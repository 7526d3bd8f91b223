"""The certificate of a student's tuned plan as one page that needs nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from fewstep.tuning.page import STYLE

WHO = {"train": "to search by", "validation": "to choose by", "held_out": "held out, to compare on"}


def page_of(certificate: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    """HTML of what `StudentCertificate.to_json` gives, and of PNG files by what drew them."""
    student, teacher = (certificate[who]["name"] for who in ("model", "teacher"))
    title = f"Tuned plan in {certificate['rows']} rows for {student}, a student of {teacher}"
    rows = "".join(_row(one, one["digest"] == certificate["plan"]) for one in certificate["compared"])
    judged = {"distance": "the distance", "psnr": "the error of the typical picture", "rmse": "the error over all"}
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p class="verdict">{escape(certificate["verdict"])}.</p>
<h2>Compared on {certificate["images"]["held_out"]} pictures of held-out noise</h2>
<table><tr><th>plan</th><th>times of its rows</th><th>fresh noise</th><th>error</th><th>95% interval</th>
<th>distance</th><th>95% interval</th></tr>
{rows}</table>
<p>The plan was chosen by {judged[certificate["objective"]]}. An error is the root mean square distance to the teacher's
picture of the same noise, the geometric mean over pictures. The distance is the {escape(certificate["measure"])}, of
all pictures together to the teacher's of other noise; that of the teacher itself is
{_number((certificate["floor"] or {}).get("value"))}. Fresh noise is the share of the noise after a row that is drawn
anew: at 0 nothing, as in DDIM, at 1 all of it, as in consistency sampling. Intervals are a bootstrap over
pictures.</p>
{_pictures(pictures)}
<h2>How</h2>
<table>{"".join(_pair(name, value) for name, value in _facts(certificate))}</table>
</body></html>
"""


def _row(one: Mapping[str, Any], own: bool) -> str:
    times = ", ".join(f"{t:.4g}" for t in one["times"])
    fresh = ", ".join(f"{share:.2f}" for share in one["fresh"][:-1])
    cells = "".join(
        f"<td class='n'>{_number((one[name] or {}).get('value'))}</td>{_interval(one[name])}" for name in FIGURES
    )
    mark = " class='own'" if own else ""
    return f"<tr{mark}><td>{escape(one['who'])}</td><td>{times}</td><td>{fresh}</td>{cells}</tr>\n"


FIGURES = ("error", "distance")


def _interval(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "<td></td>"
    return f"<td class='n'>{_number(found['low'])} to {_number(found['high'])}</td>"


def _pictures(pictures: Mapping[str, bytes]) -> str:
    rows = "".join(
        f"<figure><img alt='{escape(name)}' src='data:image/png;base64,{b64encode(png).decode()}'>"
        f"<figcaption>{escape(name)}</figcaption></figure>"
        for name, png in pictures.items()
    )
    return f"<h2>The first pictures of held-out noise</h2>{rows}" if rows else ""


def _facts(certificate: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    yield "plan", certificate["plan"]
    yield "student", _listed(certificate["model"])
    yield "teacher", _listed(certificate["teacher"])
    yield "settings", _listed(certificate["settings"])
    yield "pictures", ", ".join(f"{certificate['images'][name]} {words}" for name, words in WHO.items())
    search = certificate["search"]
    yield "search", f"{search['tried']} plans" + (", cut short, as its time was over" if search["cut"] else "")
    yield "seconds", ", ".join(f"{name} {value:.1f}" for name, value in certificate["seconds"].items())
    yield "seed", certificate["seed"]
    yield "versions", f"fewstep {certificate['fewstep']}, torch {certificate['torch']}"
    if certificate["stopped"]:
        yield "stopped", certificate["stopped"]
    for note in certificate["notes"]:
        yield "note", note


def _listed(facts: Mapping[str, Any] | Sequence[Any]) -> str:
    pairs = facts.items() if isinstance(facts, Mapping) else enumerate(facts)
    return ", ".join(f"{key} {value}" for key, value in pairs) or "none"


def _pair(name: str, value: Any) -> str:
    return f"<tr><td>{escape(str(name))}</td><td>{escape(str(value))}</td></tr>\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
