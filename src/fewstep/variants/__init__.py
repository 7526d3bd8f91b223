"""What is made of a model so that its calls are cheaper: each function takes a model and returns another."""

from __future__ import annotations

from fewstep.variants.cast import cast, cast_codec
from fewstep.variants.compile import compile_codec, compile_model, compile_seconds
from fewstep.variants.folder import MeasuredElsewhere, files_of, is_variant, load, write
from fewstep.variants.store import Store
from fewstep.variants.variant import Variant

__all__ = [
    "MeasuredElsewhere",
    "Store",
    "Variant",
    "cast",
    "cast_codec",
    "compile_codec",
    "compile_model",
    "compile_seconds",
    "files_of",
    "is_variant",
    "load",
    "write",
]
