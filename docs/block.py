"""A page that is written partly by people and partly by code: code writes between two marks only."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent


def filled(page: Path, blocks: dict[str, str]) -> str:
    """The text of `page` with each block between its two marks, `<!-- begin NAME -->` and `<!-- end NAME -->`."""
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->\n"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise SystemExit(f"{page.name} must hold the lines {begin.strip()} and {end.strip()} once each")
        before, rest = text.split(begin)
        text = before + begin + "\n" + block.strip() + "\n\n" + end + rest.split(end)[1]
    return text


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def linked(source: str) -> str:
    """`source` with its arXiv numbers as links."""
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", source)


def shown(options: dict[str, object]) -> str:
    """Options and their default values, as they are typed."""
    values = {name: f"{v:.4g}" if isinstance(v, float) else repr(v) for name, v in options.items()}
    return ", ".join(f"`{name}={value}`" for name, value in values.items())
