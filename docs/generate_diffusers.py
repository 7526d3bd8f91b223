"""Writes the table of pipelines and samplers of docs/diffusers.md: draws with tiny networks, ours and diffusers'."""

import sys
from pathlib import Path

from block import DOCS, filled, table
from diffusers.utils import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from adapters.table import SAMPLERS, rows

PAGE = DOCS / "diffusers.md"


def render() -> str:
    """The page, with the table as it is now."""
    logging.set_verbosity_error()
    header = ["pipeline", "its scheduler", *(f"`{sampler}`" for sampler in SAMPLERS)]
    return filled(PAGE, {"pipelines": table(header, rows())})


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
