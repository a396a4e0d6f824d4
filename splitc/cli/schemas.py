"""The JSON Schemas that splitc ships, made from the records: `make schemas` writes them."""

import json
from pathlib import Path
from typing import Any

import splitc
from splitc.bundle.manifest import Manifest
from splitc.cli.facts.bundle import BundleFacts, CompileFacts
from splitc.cli.facts.calibrate import CalibrateFacts, ClearFacts
from splitc.cli.facts.model import ModelFacts
from splitc.cli.facts.pipeline import PipelineFacts
from splitc.cli.facts.run import RunFacts
from splitc.cli.facts.serve import ServeFacts
from splitc.cli.facts.simulate import SimulateFacts
from splitc.cli.facts.targets import CheckedFacts, NetworkFacts, TargetFacts, TargetsFacts
from splitc.cli.facts.verify import VerifyFacts
from splitc.cli.facts.written import WrittenFacts
from splitc.common.schema import json_schema
from splitc.demo.demo import Moment
from splitc.profile.document import Profile

FOLDER = Path(splitc.__file__).parent / "schemas"
SCHEMAS: dict[str, Any] = {
    "manifest": Manifest,
    "profile": Profile,
    "compile": CompileFacts,
    "inspect-model": ModelFacts,
    "inspect-pipeline": PipelineFacts,
    "inspect-bundle": BundleFacts,
    "verify": VerifyFacts,
    "calibrate": CalibrateFacts,
    "calibrate-clear": ClearFacts,
    "sample": WrittenFacts,
    "targets": TargetsFacts,
    "targets-machine": TargetFacts,
    "targets-network": NetworkFacts,
    "targets-check": tuple[CheckedFacts, ...],
    "pack": WrittenFacts,
    "serve": ServeFacts,
    "run": RunFacts,
    "demo": tuple[Moment, ...],
    "simulate": SimulateFacts,
}
"""What each schema describes: the two kinds of files, and what each command prints with `--json`."""


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
