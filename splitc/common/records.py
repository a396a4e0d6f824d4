"""Turn plain JSON or TOML values into frozen dataclasses, strictly, and back.

The type hints of the dataclass are the schema: str, int, float, bool, X | None, tuple[X, ...],
tuple[X, Y], dict[str, X], Literal, nested dataclasses, and Annotated[X, Limit(...)] where the type
alone allows too much. Nothing is converted, except that an integer is accepted where a float is
expected. Only the standard library is used, because a device reads its manifest with this module.

The class attribute `FORMS` states which values of several fields belong together. A dataclass that has
limits or forms calls `check` in `__post_init__`, so that they also hold for records that the program
makes itself. It may check more there and raise ValueError with a sentence for each mistake; the reader
puts the place in front of each.

`schema.py` turns the same type hints, limits and forms into a JSON Schema.
"""

import difflib
import math
import operator
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from splitc.common.errors import SplitcError

T = TypeVar("T")
_Decoder = Callable[[object, str], object]
_SHOWN_CHARACTERS = 57
_SURROGATE = re.compile("[\ud800-\udfff]")
_END = 2**63
_SPARSE = "sparse"
SPARSE: Mapping[str, bool] = {_SPARSE: True}
"""Metadata of a field that is omitted if it has its default value, because older readers do not know the key."""

GIVEN: Final = object()
"""In a form: any value but None."""
_HOLDS: dict[str, Callable[[Any, Any], object]] = {
    "const": operator.eq,
    "minimum": operator.ge,
    "exclusiveMinimum": operator.gt,
    "maximum": operator.le,
    "minItems": lambda items, least: len(items) >= least,
    "pattern": lambda text, pattern: re.fullmatch(pattern, text),
}


@dataclass(frozen=True, slots=True)
class Limit:
    """A condition on a value, in addition to its type.

    Attributes:
        keyword, bound: the condition as in a JSON Schema.
        expected: the condition for people: "expected ..., found ...".
    """

    keyword: Literal["const", "minimum", "exclusiveMinimum", "maximum", "minItems", "pattern"]
    bound: int | str
    expected: str

    def holds(self, value: object) -> bool:
        """Return whether *value*, which has the right type, meets the condition."""
        return bool(_HOLDS[self.keyword](value, self.bound))


NOT_EMPTY = Limit("minItems", 1, "at least one item")
Count = Annotated[int, Limit("minimum", 0, "an integer of at least 0")]
PositiveCount = Annotated[int, Limit("minimum", 1, "an integer of at least 1")]
Amount = Annotated[float, Limit("minimum", 0, "a number of at least 0")]
PositiveAmount = Annotated[float, Limit("exclusiveMinimum", 0, "a number above 0")]
Sha256 = Annotated[str, Limit("pattern", "^[0-9a-f]{64}$", "64 hexadecimal digits")]


@dataclass(frozen=True, slots=True)
class Forms:
    """Which values of several fields go together: a record has exactly one of the forms.

    Attributes:
        expected: what all forms have in common, for people: "expected ...".
        forms: for each form, the value of each field, or `GIVEN` for any value except None.
    """

    expected: str
    forms: tuple[Mapping[str, object], ...]

    def fit(self, record: object) -> bool:
        """Whether *record* has one of the forms."""
        return any(
            all(fits(getattr(record, name), wanted) for name, wanted in form.items()) for form in self.forms
        )


def fits(value: object, wanted: object) -> bool:
    """Return whether *value* is the value that a form requires."""
    return value is not None if wanted is GIVEN else value == wanted


class RecordError(SplitcError):
    """A value does not match the fields of a record; the message says where.

    Attributes:
        mistakes: one sentence for each mistake; the first one is the message.
    """

    def __init__(self, *mistakes: str) -> None:
        super().__init__(mistakes[0])
        self.mistakes = mistakes


def decode(cls: type[T], value: object, where: str) -> T:
    """Return *value* as an instance of the dataclass *cls*.

    Args:
        where: the file that the value was read from; every message begins with it.

    Raises:
        RecordError: an unknown or missing key, or a value of another type.
    """
    hint: Any = cls  # to mypy, a type variable's type need not be hashable
    try:
        return cast(T, _decoder(hint)(value, ""))
    except RecordError as error:
        raise RecordError(*(f"{where}: {mistake}" for mistake in error.mistakes)) from error.__cause__


def encode(instance: object) -> object:
    """Return plain values for *instance*: the inverse of `decode`.

    Keys have the order of the fields, and keys of a dict are sorted, so equal records give equal text.

    Raises:
        RecordError: a number that JSON cannot hold.
    """
    if is_dataclass(instance):
        values = ((item, getattr(instance, item.name)) for item in fields(instance))
        return {
            item.name: encode(value)
            for item, value in values
            if not (item.metadata.get(_SPARSE) and value == item.default)
        }
    if isinstance(instance, tuple):
        return [encode(item) for item in instance]
    if isinstance(instance, dict):
        return {key: encode(instance[key]) for key in sorted(instance)}
    if isinstance(instance, float) and not math.isfinite(instance):
        raise RecordError(f"{instance} cannot be written: a record holds finite numbers only")
    return instance


def check(record: Any) -> None:
    """Raise an error if a field of *record* breaks its limit, or the record has none of its forms.

    Call it in `__post_init__`.

    Raises:
        ValueError: with a sentence for each mistake.
    """
    cls: Any = type(record)  # to mypy, a type need not be hashable
    found = _Mistakes()
    for name, decoder in _limited_fields(cls).items():
        found.read(decoder, getattr(record, name), name)
    try:
        found.tell()
    except RecordError as error:
        raise ValueError(*error.mistakes) from None
    forms: Forms | None = getattr(record, "FORMS", None)
    if forms is not None and not forms.fit(record):
        raise ValueError(f"expected {forms.expected}")


@cache
def _limited_fields(cls: Any) -> dict[str, _Decoder]:
    hints = get_type_hints(cls, include_extras=True)
    return {item.name: _decoder(hints[item.name]) for item in fields(cls) if _is_limited(hints[item.name])}


def _is_limited(hint: Any) -> bool:
    return get_origin(hint) is Annotated or any(_is_limited(part) for part in get_args(hint))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the known word nearest to *word*, or nothing."""
    near = _nearest(word, known)
    return f", did you mean '{near}'?" if near else ""


def _nearest(word: str, known: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


@cache
def _decoder(hint: Any) -> _Decoder:  # noqa: PLR0911 - one for each kind; a type hint is Any
    """Return the function that reads a value of type *hint*, given its path for messages."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _limited(*arguments)
    if origin is Literal:
        return _literal(arguments)
    if origin is tuple:
        return _sequence(arguments[0]) if arguments[-1] is ... else _fixed(arguments)
    if origin is dict and arguments[0] is str:
        return _mapping(arguments[1])
    if origin in (types.UnionType, Union):
        return _union(arguments)
    if is_dataclass(hint):
        return _record(hint)
    if hint in _SCALARS:
        return _SCALARS[hint]
    raise TypeError(f"records cannot hold {hint!r}")


def _record(cls: Any) -> _Decoder:
    """Read a table with exactly the fields of *cls*; those with a default may be absent."""
    hints = get_type_hints(cls, include_extras=True)
    decoders = {item.name: _decoder(hints[item.name]) for item in fields(cls)}
    required = [item.name for item in fields(cls) if is_required(item)]

    def read(value: object, path: str) -> object:
        if isinstance(value, cls):  # the value is part of a record that `check` checks
            return value
        if not isinstance(value, dict):
            raise _mismatch(path, "a table", value)
        found = _Mistakes()
        unknown = [str(key) for key in value if key not in decoders]
        for key in unknown:
            found.add(_error(path, f"unknown key '{key}'{did_you_mean(key, decoders)}"))
        misspelt = {_nearest(key, decoders) for key in unknown}  # one mistake, not a missing key as well
        for key in required:
            if key not in value and key not in misspelt:
                found.add(_error(path, f"key '{key}' is missing"))
        known = {key: item for key, item in value.items() if key in decoders}
        arguments = {key: found.read(decoders[key], item, _inside(path, key)) for key, item in known.items()}
        found.tell()
        try:
            return cls(**arguments)
        except ValueError as error:
            sentences = error.args or ("is not valid",)
            raise RecordError(*(_at(path, str(sentence)) for sentence in sentences)) from error

    return read


class _Mistakes:
    """Collects the mistakes in the parts of one value, so that one error reports all of them."""

    def __init__(self) -> None:
        self._found: list[RecordError] = []

    def add(self, error: RecordError) -> None:
        self._found.append(error)

    def read(self, decoder: _Decoder, item: object, path: str) -> object:
        """Return the result of *decoder* for *item*, or None after a mistake, which `tell` raises."""
        try:
            return decoder(item, path)
        except RecordError as error:
            self.add(error)
            return None

    def tell(self) -> None:
        """Raise one error with every mistake, if there was any."""
        if self._found:
            sentences = [sentence for error in self._found for sentence in error.mistakes]
            raise RecordError(*sentences) from self._found[0].__cause__


def is_required(item: Field[Any]) -> bool:
    """Whether the field has no default."""
    return item.default is MISSING and item.default_factory is MISSING


def _limited(hint: Any, *limits: Limit) -> _Decoder:
    decoder = _decoder(hint)

    def read(value: object, path: str) -> object:
        found = decoder(value, path)
        for limit in limits:
            if not limit.holds(found):
                raise _mismatch(path, limit.expected, value)
        return found

    return read


def _sequence(hint: Any) -> _Decoder:
    item_decoder = _decoder(hint)

    def read(value: object, path: str) -> object:
        found = _Mistakes()
        items = enumerate(_as_list(value, path))
        read_items = tuple([found.read(item_decoder, item, f"{path}[{index}]") for index, item in items])
        found.tell()
        return read_items

    return read


def _fixed(hints: tuple[Any, ...]) -> _Decoder:
    decoders = [_decoder(hint) for hint in hints]

    def read(value: object, path: str) -> object:
        items = _as_list(value, path)
        if len(items) != len(decoders):
            raise _error(path, f"expected {len(decoders)} items, found {len(items)}")
        found = _Mistakes()
        pairs = enumerate(zip(decoders, items, strict=True))
        read_items = tuple(
            [found.read(decoder, item, f"{path}[{index}]") for index, (decoder, item) in pairs]
        )
        found.tell()
        return read_items

    return read


def _mapping(hint: Any) -> _Decoder:
    item_decoder = _decoder(hint)

    def read(value: object, path: str) -> object:
        if not isinstance(value, dict):
            raise _mismatch(path, "a table", value)
        for key in value:
            if not isinstance(key, str):
                raise _mismatch(path, "keys that are text", key)
            _text(key, path)
        found = _Mistakes()
        read_items = {key: found.read(item_decoder, item, _inside(path, key)) for key, item in value.items()}
        found.tell()
        return read_items

    return read


def _union(hints: tuple[Any, ...]) -> _Decoder:
    """Read the first member that fits; with one member besides None, its own message is kept."""
    decoders = [_decoder(hint) for hint in hints if hint is not types.NoneType]
    optional = types.NoneType in hints

    def read(value: object, path: str) -> object:
        if value is None and optional:
            return None
        if len(decoders) == 1:
            return decoders[0](value, path)
        for decoder in decoders:
            try:
                return decoder(value, path)
            except RecordError:
                continue
        raise _mismatch(path, " or ".join(_hint_name(hint) for hint in hints), value)

    return read


def _literal(allowed: tuple[Any, ...]) -> _Decoder:
    def read(value: object, path: str) -> object:
        for item in allowed:
            if type(item) is type(value) and item == value:
                return value
        choices = ", ".join(repr(item) for item in allowed)
        hint = did_you_mean(value, map(str, allowed)) if isinstance(value, str) else ""
        raise _mismatch(path, f"one of {choices}", value, hint)

    return read


def _text(value: object, path: str) -> object:
    if not isinstance(value, str):
        raise _mismatch(path, "text", value)
    if not value.isascii() and _SURROGATE.search(
        value
    ):  # JSON can hold half a letter; files and UTF-8 cannot
        raise _mismatch(path, "text of whole letters", value)
    return value


def _boolean(value: object, path: str) -> object:
    if not isinstance(value, bool):
        raise _mismatch(path, "true or false", value)
    return value


def _integer(value: object, path: str) -> object:
    # bool is a subclass of int, but `true` is not a size
    if not isinstance(value, int) or isinstance(value, bool):
        raise _mismatch(path, "an integer", value)
    if not -_END <= value < _END:
        raise _mismatch(path, "an integer of at most 64 bits", value)
    return value


def _number(value: object, path: str) -> object:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _mismatch(path, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise _mismatch(path, "a finite number", value)
    return number


_SCALARS: dict[Any, _Decoder] = {str: _text, bool: _boolean, int: _integer, float: _number}
_NAMES = {str: "text", bool: "true or false", int: "an integer", float: "a number", types.NoneType: "nothing"}


def _hint_name(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        return " and ".join(limit.expected for limit in get_args(hint)[1:])
    return _NAMES[hint] if hint in _NAMES else str(getattr(hint, "__name__", hint))


def _as_list(value: object, path: str) -> list[object]:
    # a tuple is what a caller's own code holds before it becomes JSON
    if not isinstance(value, list | tuple):
        raise _mismatch(path, "a list", value)
    return list(value)


def _inside(path: str, key: str) -> str:
    if not key.isidentifier():
        return f"{path}[{key!r}]"
    return f"{path}.{key}" if path else key


def _mismatch(path: str, expected: str, value: object, hint: str = "") -> RecordError:
    return _error(path, f"expected {expected}, found {shown(value)}{hint}")


def shown(value: object) -> str:
    """Return the beginning of *value* as Python writes it."""
    try:
        found = repr(value)
    except (RecursionError, ValueError):  # too deep, or a number of thousands of digits
        return f"a huge {type(value).__name__}"
    return f"{found[:_SHOWN_CHARACTERS]}..." if len(found) > _SHOWN_CHARACTERS else found


def _error(path: str, message: str) -> RecordError:
    return RecordError(_at(path, message))


def _at(path: str, message: str) -> str:
    return f"{path}: {message}" if path else message
