"""Drawing: from the numbers of a figure to the bytes of a picture, by matplotlib."""

from __future__ import annotations

from fewstep.show.draw.render import SUFFIXES, Result, check_suffix, need_matplotlib, picture

__all__ = ["SUFFIXES", "Result", "check_suffix", "need_matplotlib", "picture"]
