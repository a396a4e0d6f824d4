"""Make the JSON Schema (draft 2020-12) of a record that `records.py` reads and writes.

Everything comes from the dataclass: types, limits and forms, and descriptions from the docstring: its
first paragraph for the record, "Attributes:" for the fields.
"""

import re
import types
from dataclasses import MISSING, Field, fields, is_dataclass
from inspect import cleandoc
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from splitc.common.records import GIVEN, Forms, encode, fits, is_required

Schema = dict[str, Any]
_SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number", types.NoneType: "null"}


def json_schema(hint: Any, title: str) -> Schema:
    """Return the schema of values of type *hint*: a record, or a list or table of them.

    Raises:
        TypeError: records cannot hold such a type, or two of its classes have one name.
    """
    maker = _Maker()
    root = maker.record(hint) if is_dataclass(hint) else maker.value(hint)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **root}
    return schema | ({"$defs": maker.definitions} if maker.definitions else {})


class _Maker:
    """Makes schemas, and stores those of nested records, which it refers to by the name of the class."""

    def __init__(self) -> None:
        self.definitions: dict[str, Schema] = {}
        self._classes: dict[str, Any] = {}

    def value(self, hint: Any) -> Schema:  # noqa: PLR0911 - one for each kind of type
        """The schema of a value of type *hint*."""
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            limits = {limit.keyword: limit.bound for limit in arguments[1:]}
            return {**self.value(arguments[0]), **limits}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin is tuple and arguments[-1] is ...:
            return {"type": "array", "items": self.value(arguments[0])}
        if origin is tuple:
            items = [self.value(item) for item in arguments]
            return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
        if origin is dict and arguments[0] is str:
            return {"type": "object", "additionalProperties": self.value(arguments[1])}
        if origin in (types.UnionType, Union):
            return _any_of([self.value(item) for item in arguments])
        if is_dataclass(hint):
            return self._reference(hint)
        if hint in _SCALARS:
            return {"type": _SCALARS[hint]}
        raise TypeError(f"records cannot hold {hint!r}")

    def record(self, cls: Any) -> Schema:
        """The schema of a record with exactly the fields of *cls*."""
        hints = get_type_hints(cls, include_extras=True)
        text, _ = _descriptions(cls)
        texts = {
            name: said for base in reversed(cls.__mro__) for name, said in _descriptions(base)[1].items()
        }
        properties = {
            item.name: _described(texts.get(item.name)) | self.value(hints[item.name]) | _default(item)
            for item in fields(cls)
        }
        schema = _described(text) | {
            "type": "object",
            "additionalProperties": False,
            "required": [item.name for item in fields(cls) if is_required(item)],
            "properties": properties,
        }
        forms: Forms | None = getattr(cls, "FORMS", None)
        if forms is None:
            return schema
        return schema | {"oneOf": [_form(form, cls) for form in forms.forms]}

    def _reference(self, cls: Any) -> Schema:
        name = cls.__name__
        if name not in self._classes:
            self._classes[name] = cls
            self.definitions[name] = {}  # keeps the place: records are listed in the order of their use
            self.definitions[name] = self.record(cls)
        if self._classes[name] is not cls:
            raise TypeError(f"two records in one schema have the name {name}")
        return {"$ref": f"#/$defs/{name}"}


def _any_of(schemas: list[Schema]) -> Schema:
    if all(list(schema) == ["type"] for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}


def _form(form: Any, cls: Any) -> Schema:
    """Return the schema of one form; a field is required if its default does not match the form."""
    defaults = {item.name: item.default for item in fields(cls) if not is_required(item)}
    required = [name for name in form if name in defaults and not fits(defaults[name], form[name])]
    properties = {name: _wanted(value) for name, value in form.items()}
    return {"properties": properties} | ({"required": required} if required else {})


def _wanted(value: object) -> Schema:
    if value is GIVEN:
        return {"not": {"type": "null"}}
    return {"type": "null"} if value is None else {"const": value}


def _default(item: Field[Any]) -> Schema:
    if item.default_factory is not MISSING:
        return {"default": encode(item.default_factory())}
    return {} if item.default is MISSING else {"default": encode(item.default)}


def _described(text: str | None) -> Schema:
    return {"description": text} if text else {}


def _descriptions(cls: Any) -> tuple[str | None, dict[str, str]]:
    """Return the descriptions of the record and of its fields from the docstring of *cls*."""
    doc = cleandoc(cls.__doc__ or "")
    if doc.startswith(f"{cls.__name__}("):  # Python gives a dataclass without a docstring its signature
        return None, {}
    texts: dict[str, str] = {}
    _, _, section = doc.partition("\nAttributes:\n")
    for entry in re.split(r"\n(?=    \w)", "\n" + section):
        names, colon, text = entry.strip().partition(": ")
        if colon:
            texts |= dict.fromkeys(names.split(", "), _sentence(text))
    return _sentence(doc.partition("\n\n")[0]), texts


def _sentence(text: str) -> str:
    line = " ".join(text.split())
    return line[:1].upper() + line[1:]
