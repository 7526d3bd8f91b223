"""Writes the tables of docs/drawings.md from the fields of a drawing: `python docs/generate_drawings.py`."""

from __future__ import annotations

from block import DOCS, filled, table
from pydantic_core import PydanticUndefined

from fewstep.drawing import Decode, Drawing, Estimate, Guidance, Made, Sampling, Source
from fewstep.drawing.value import Value

PAGE = DOCS / "drawings.md"
PARTS = {"sampling": Sampling, "guidance": Guidance, "estimate": Estimate, "source": Source, "decode": Decode}
WHAT = {
    "sampling": "The sampler on its grid, or a plan.",
    "guidance": "How strongly the condition acts, and by which method.",
    "estimate": "How estimates of pixels are brought into their range.",
    "source": "The picture that the drawing starts from.",
    "decode": "How latents become pictures.",
}


def fields(kind: type[Value], above: str = "") -> str:
    """A table of the fields of a value."""
    rows = []
    for name, info in kind.model_fields.items():
        part = PARTS.get(name) if kind is Drawing else None
        usual = "" if part is not None or info.default is PydanticUndefined else f"`{info.default!r}`"
        rows.append([f"`{above}{name}`", WHAT.get(name) if part else info.description or "", usual])
    return table(["field", "what it is", "default"], rows)


def parts() -> str:
    """A table for each part."""
    return "\n\n".join(f"### {name}\n\n{fields(kind, f'{name}.')}" for name, kind in PARTS.items())


def render() -> str:
    """The page as it has to be."""
    return filled(PAGE, {"fields": fields(Drawing), "parts": parts(), "made": fields(Made)})


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
