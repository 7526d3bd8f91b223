"""What is made of a model, as a value: it is written beside its weights, and applied when these are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from fewstep.core.errors import InvalidInput, shown, unknown_name
from fewstep.models import Model
from fewstep.variants.cast import DTYPES, cast, cast_codec
from fewstep.variants.compile import compile_codec, compile_model
from fewstep.variants.store import Store


@dataclass(frozen=True)
class Variant:
    """What is made of a model. Empty is the model itself.

    Attributes:
        network, codec: "float16" or "bfloat16", what the network runs and the VAE decodes in; None is float32.
        compiled, codec_compiled: whether they are compiled.
    """

    network: str | None = None
    codec: str | None = None
    compiled: bool = False
    codec_compiled: bool = False

    def __post_init__(self) -> None:
        for name in ("network", "codec"):
            value = getattr(self, name)
            if value is not None and value not in DTYPES:
                raise unknown_name(f"dtype of the {name}", str(value), DTYPES)
        for name in ("compiled", "codec_compiled"):
            if type(getattr(self, name)) is not bool:
                raise InvalidInput(f"{name} must be true or false, got {shown(getattr(self, name))}")

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Variant:
        """The inverse of `to_json`. Raises `InvalidInput` for unknown fields and other values."""
        known = [one.name for one in fields(Variant)]
        for name in document:
            if name not in known:
                raise unknown_name("part of a variant", str(name), known)
        return Variant(**document)

    def to_json(self) -> dict[str, Any]:
        """What differs from the model itself."""
        return {name: value for name, value in asdict(self).items() if value not in (None, False)}

    def of(self, model: Model, batches: Sequence[int] = (1,), store: Store | None = None) -> Model:
        """The model with all this made of it; what is compiled is for drawings of so many images at once.

        Raises `InvalidInput` where the model does not allow it.
        """
        store = store or Store()
        if self.codec is not None:
            model = cast_codec(model, self.codec)
        if self.network is not None:
            model = cast(model, self.network)
        if self.codec_compiled:
            model = compile_codec(model, batches, store=store)
        return compile_model(model, batches, store=store) if self.compiled else model

    def __str__(self) -> str:
        words = [f"network in {self.network}"] if self.network else []
        words += ["network compiled"] if self.compiled else []
        words += [f"VAE in {self.codec}"] if self.codec else []
        words += ["VAE compiled"] if self.codec_compiled else []
        return ", ".join(words) or "as it is"
