"""The ways to make a network call cheaper that are tried, each a change of a `Variant`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from fewstep.variants import Variant


@dataclass(frozen=True)
class Technique:
    """One way, by name; `change` are fields of a variant."""

    name: str
    change: Mapping[str, Any]

    def on(self, variant: Variant) -> Variant | None:
        """A variant with this too; None where it has something else in its place."""
        free = all(getattr(variant, field) in (None, False) for field in self.change)
        return replace(variant, **self.change) if free else None


TECHNIQUES = (
    Technique("network in bfloat16", {"network": "bfloat16"}),
    Technique("network in float16", {"network": "float16"}),
    Technique("network compiled", {"compiled": True}),
    Technique("VAE in bfloat16", {"codec": "bfloat16"}),
    Technique("VAE in float16", {"codec": "float16"}),
    Technique("VAE compiled", {"codec_compiled": True}),
)
