"""The page of claims, written from the figures alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from literature.claim import Cell, Check, Claim, Interval, number, verdict
from literature.record import Record
from literature.subject import MODELS, WHAT, counts

COMMAND = "python benchmarks/claims.py"
WORD = re.compile(r"(?:\[[^\]]*\]\([^)]*\)|`[^`]*`|\*\*[^*]*\*\*|\S)+")
"""A word, a link or code, which stay on one line."""
MEANING = (
    "Intervals, in brackets, are of 95% by the bootstrap over images, and ratios are paired: both sides start from the "
    "same noise. Errors below three times that of the converged solution itself cannot be told apart, and ratios take "
    "them as equal.",
    "*Holds* means that every condition of the rule is met, *in part* that some are, *does not hold* that none is and "
    "one is surely not, *not decided* that intervals reach over the bounds. These models are small: a claim that fails "
    "here may hold for large ones.",
)
OUTCOMES = {True: "yes", False: "no", None: "not decided"}


def render(claims: Sequence[Claim], record: Record, models: Sequence[str] = MODELS) -> str:
    """The whole page, of the claims that have figures on one of the models at least."""
    shown = [claim for claim in claims if record.figures(claim, models)]
    entries = [record.entries[claim.key, model] for claim in shown for model in record.figures(claim, models)]
    used = [model for model in MODELS if any(model in record.figures(claim, models) for claim in shown)]
    images = sorted({entry.images for entry in entries})
    made = f"{COMMAND} --images {images[0]} --page docs/claims.md" if len(images) == 1 else f"{COMMAND} --page FILE"
    left = [claim.title for claim in claims if claim not in shown]
    parts = [
        "# Claims",
        "What papers and textbooks say of samplers, beside its figure here. `benchmarks/claims.py` measures each claim "
        "and writes this page; the verdicts follow from the figures by the rules in the sections.",
        _table(("claim", "source", "here", "verdict"), [_summary(claim, record, models) for claim in shown]),
        *([f"Left out, as their models were: {'; '.join(left)}."] if left else []),
        f"`{made}` writes it. The figures took {sum(entry.seconds for entry in entries):.0f} seconds of one core. The "
        "models:",
        _table(("model", "what it is"), [(model, WHAT[model]) for model in used]),
        *([counts(images[0])] if len(images) == 1 else []),
        *MEANING,
        *(section(claim, record, models) for claim in shown),
    ]
    return "\n\n".join(_wrapped(part) for part in parts) + "\n"


def section(claim: Claim, record: Record, models: Sequence[str] = MODELS) -> str:
    """The part of one claim."""
    figures = record.figures(claim, models)
    rows: list[Sequence[Cell]] = [
        [model, *row] for model in figures for row in record.entries[claim.key, model].found.rows
    ]
    checks = [
        f"- {model}: {check.words}: **{OUTCOMES[check.met]}**"
        for model in figures
        for check in claim.checks(figures[model])
    ]
    parts = [
        f"## {claim.title}",
        claim.says,
        f"Source: {linked('; '.join(claim.sources))}.",
        f"Measured: {claim.method} {claim.missing}".rstrip(),
        f"Rule: {claim.rule}",
        f"Verdict: **{verdict(_checks(claim, record, models))}**.",
        "\n".join(checks),
        _table(("model", *claim.columns), rows),
        f"    {COMMAND} --claims {claim.key} --images {record.entries[claim.key, next(iter(figures))].images}",
    ]
    return "\n\n".join(_wrapped(part) for part in parts)


def _checks(claim: Claim, record: Record, models: Sequence[str]) -> list[Check]:
    return [check for own in record.figures(claim, models).values() for check in claim.checks(own)]


def _summary(claim: Claim, record: Record, models: Sequence[str]) -> tuple[str, ...]:
    figures = record.figures(claim, models)
    here = "; ".join(f"{model} {claim.short(own)}" for model, own in figures.items())
    here = f"{claim.here}: {here}" if claim.here else here
    link = f"[{claim.title}](#{anchor(claim.title)})"
    return link, linked("; ".join(re.sub(r", section.*", "", one) for one in claim.sources)), here, verdict(
        _checks(claim, record, models)
    )  # fmt: skip


def anchor(title: str) -> str:
    """The link that the site makes of a heading."""
    kept = re.sub(r"[^\w\s-]", "", title.lower())
    return re.sub(r"[\s]+", "-", kept).strip("-")


def linked(source: str) -> str:
    """A source with its arXiv numbers as links."""
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", source)


def _table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    lines = [head, ["---"] * len(head), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return number(cell)
    return str(cell) if isinstance(cell, Interval | int) else cell.replace("|", "\\|")


def _wrapped(part: str) -> str:
    """Lines of text and of points of at most 120 columns; tables and code stay."""
    if part.startswith("- "):
        return "\n".join(_filled(point, "  ") for point in part.split("\n"))
    return part if part.startswith(("|", " ", "#")) or "\n" in part else _filled(part)


def _filled(text: str, indent: str = "") -> str:
    lines, line = [], ""
    for word in WORD.findall(text):
        if line and len(line) + 1 + len(word) > 120:
            lines.append(line)
            line = indent + word
        else:
            line = f"{line} {word}" if line else word
    return "\n".join([*lines, line])
