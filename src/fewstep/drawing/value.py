"""Values: frozen, complete and strictly validated, with JSON that reads back to the same bits.

Nothing is coerced: `True` is not 1, a misspelt field is refused with the nearest known one, and a number is finite
unless its field says otherwise. What is refused is an `InvalidInput` that begins with the path of the field.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    StringConstraints,
    ValidationError,
)
from pydantic_core import core_schema

from fewstep.core.errors import InvalidInput, is_finite, shown, unknown_name

MOST_OPTIONS, LONGEST_TEXT = 32, 200
"""Most options of a sampler, grid or method, and most characters of a text among them."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
"""Sixteen hexadecimal digits over the content of something that travels beside the value."""


def several(value: Any) -> Any:
    """A list, range or array as a tuple of Python's own numbers, which is what frozen values hold."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(value) if isinstance(value, list | range) else value


def _unbounded(value: Any) -> Any:
    return math.inf if value == "inf" else value


def _written_out(value: float) -> float | str:
    return "inf" if value == math.inf else value


Unbounded = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(_unbounded),
    PlainSerializer(_written_out, return_type=float | str),
]
"""A number that may be infinite, in JSON "inf"."""


class Options(dict[str, Any]):
    """Options by name: numbers, short texts, true, false, None, or short lists of them. They cannot be changed."""

    def __init__(self, values: Mapping[str, Any] | None = None):
        super().__init__({str(name): several(value) for name, value in (values or {}).items()})
        if len(self) > MOST_OPTIONS or not all(map(_is_option, self.values())):
            raise InvalidInput(
                f"options are at most {MOST_OPTIONS} finite numbers, texts of at most {LONGEST_TEXT} characters, true, "
                f"false, None, or lists of them by name, got {shown(dict(values or {}))}"
            )

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("options cannot be changed: make another value, such as drawing.but(..)")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return Options, (dict(self),)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        def read(value: Any) -> Options:
            if not isinstance(value, Mapping):
                raise InvalidInput(f"options are a mapping from names to values, got {shown(value)}")
            return value if isinstance(value, Options) else cls(value)

        return core_schema.no_info_plain_validator_function(
            read,
            json_schema_input_schema=core_schema.dict_schema(),
            serialization=core_schema.plain_serializer_function_ser_schema(_plain),
        )


def _plain(options: Options) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}


def _is_option(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) <= MOST_OPTIONS and all(_is_option(v) and not isinstance(v, tuple) for v in value)
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT and value.isprintable()
    return value is None or isinstance(value, bool) or is_finite(value)


class Value(BaseModel):
    """Base of the values of this room. `Value.of` reads plain JSON values; constructors take the fields by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
    called: ClassVar[str] = "the value"
    """What errors call it."""

    def __init__(self, **fields: Any):
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _refused(type(self), error) from None

    @classmethod
    def of(cls, document: Any) -> Self:
        """The value of a plain mapping, as `to_json` gives it. Raises `InvalidInput`, naming the field."""
        if not isinstance(document, Mapping):
            raise InvalidInput(f"{cls.called} is {shown(document)}; it has to be an object with named fields")
        return cls(**document)

    @classmethod
    def read(cls, text: str) -> Self:
        """The value of a JSON text. Raises `InvalidInput`, naming what is wrong."""
        try:
            document = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"{cls.called} is not JSON ({error})") from error
        return cls.of(document)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, every field among them."""
        return self.model_dump(mode="json")

    @property
    def text(self) -> str:
        """The canonical JSON: in ASCII, keys in order, no spaces, numbers in the fewest digits that read back."""
        return json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits over the canonical JSON."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    def but(self, **changes: Any) -> Self:
        """The value with other fields, validated again."""
        return type(self)(**{**{name: getattr(self, name) for name in type(self).model_fields}, **changes})


def _no_constant(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


class _FieldRefused(InvalidInput):
    """An error whose message begins with the path of a field, to which the fields around it are put in front."""


def _refused(kind: type[Value], error: ValidationError) -> InvalidInput:
    """What is wrong first, with the path of its field; of the ways to read a field, the one that went furthest."""
    errors = error.errors(include_url=False)
    same = [each for each in errors if each["loc"][:1] == errors[0]["loc"][:1]]
    first = max(same, key=_how_far)
    parts = [str(part) for part in first["loc"]]
    path = ".".join(part for part in parts if part.isdigit() or part in kind.model_fields or part == parts[0])
    cause = first.get("ctx", {}).get("error")
    if first["type"] == "extra_forbidden":
        return unknown_name(f"field of {kind.called}", path, kind.model_fields)
    if first["type"] == "missing":
        return InvalidInput(f"{kind.called} lacks {path}")
    if isinstance(cause, _FieldRefused):
        return _FieldRefused(f"{path}.{cause}")
    if isinstance(cause, InvalidInput):
        return _FieldRefused(f"{path}: {cause}") if path else cause
    message = first["msg"].replace("Input should be", "has to be").replace("Value should have", "has to have")
    return _FieldRefused(f"{path or kind.called} {message}, got {shown(first['input'])}")


def _how_far(error: Any) -> tuple[int, bool]:
    """How deep in a list a value is refused, and whether its type was the right one."""
    return sum(isinstance(part, int) for part in error["loc"]), not error["type"].endswith("_type")
