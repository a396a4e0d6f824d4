"""The JSON Schemas that splitc ships, made from the records: `make schemas` writes them."""

import json
from pathlib import Path
from typing import Any

import splitc
from splitc.bundle.manifest import Manifest
from splitc.common.schema import json_schema
from splitc.profile.document import Profile

FOLDER = Path(splitc.__file__).parent / "schemas"
SCHEMAS: dict[str, Any] = {
    "manifest": Manifest,
    "profile": Profile,
}
"""What each schema describes."""


def schema_text(name: str) -> str:
    """Return the text of the schema *name*, as its file holds it."""
    return json.dumps(json_schema(SCHEMAS[name], f"splitc {name}"), indent=1, ensure_ascii=False) + "\n"


def schema_path(name: str) -> Path:
    """Return where the schema *name* is kept."""
    return FOLDER / f"{name}.schema.json"


def write_schemas() -> None:
    """Write every schema anew."""
    FOLDER.mkdir(exist_ok=True)
    for name in SCHEMAS:
        schema_path(name).write_text(schema_text(name), encoding="utf-8")


if __name__ == "__main__":
    write_schemas()
