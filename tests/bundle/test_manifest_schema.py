"""The JSON Schema and the dataclasses describe the same manifests, and leave room for nothing else."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import splitc
from splitc.bundle.folder import MANIFEST, read_bundle
from splitc.bundle.manifest import Manifest
from splitc.common.errors import BundleError
from splitc.common.records import RecordError, decode, encode
from tests import manifests
from tests.conftest import Tiny
from tests.documents import Place, label, lookup, places, replaced

SCHEMA = json.loads((Path(splitc.__file__).parent / "schemas" / "manifest.schema.json").read_bytes())
VALIDATOR = Draft202012Validator(SCHEMA)
EVERYTHING = (
    *manifests.CUTS,
    manifests.cloud_first("c3", head_s=0.1, tail_s=0.2, up=12, down=8),
    manifests.staged("c4", first=1, times=3),
)
PLAIN: dict[str, Any] = encode(manifests.manifest(EVERYTHING))  # type: ignore[assignment]


def is_valid(value: Any) -> bool:
    return bool(VALIDATOR.is_valid(value))


def is_read(value: Any) -> bool:
    try:
        decode(Manifest, value, "test")
    except RecordError:
        return False
    return True


# Maps from any name: their keys are data.
OPEN = {"generator", "opsets", "dims", "inputs", "outputs", "carry", "each"}
TABLES = [at for at in places(PLAIN) if isinstance(lookup(PLAIN, at), dict) and not (at and at[-1] in OPEN)]
OPTIONAL = {"notes", "codec", "side", "peak_bytes", "loop"}
LEAVES = [at for at in places(PLAIN) if at and not isinstance(lookup(PLAIN, at), dict | list)]


def test_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_a_real_manifest_is_valid(tiny: Tiny) -> None:
    value = json.loads(tiny.bundle.path(MANIFEST).read_bytes())
    VALIDATOR.validate(value)
    assert encode(decode(Manifest, value, "test")) == value


@pytest.mark.parametrize("at", TABLES, ids=label)
def test_closed_at_every_level(at: Place) -> None:
    copy = deepcopy(PLAIN)
    lookup(copy, at)["surprise"] = 1
    assert is_valid(PLAIN)
    assert is_read(PLAIN)
    assert not is_valid(copy)
    assert not is_read(copy)


def test_read_bundle_refuses_an_unknown_key(tiny: Tiny, tmp_path: Path) -> None:
    value = json.loads(tiny.bundle.path(MANIFEST).read_bytes())
    value["cuts"][0]["head"]["surprise"] = 1
    (tmp_path / MANIFEST).write_text(json.dumps(value), encoding="utf-8")
    with pytest.raises(BundleError, match=r"cuts\[0\]\.head: unknown key 'surprise'"):
        read_bundle(tmp_path)


@pytest.mark.parametrize(
    "at",
    [(*at, key) for at in TABLES if at != ("computes",) for key in lookup(PLAIN, at)],  # as files, see below
    ids=label,
)
def test_both_agree_on_what_may_be_absent(at: Place) -> None:
    copy = deepcopy(PLAIN)
    del lookup(copy, at[:-1])[at[-1]]
    assert is_valid(copy) == is_read(copy) == (at[-1] in OPTIONAL)


def is_reference(at: Place) -> bool:
    """Whether the value names a file: that cuts name listed files is beyond a schema."""
    return at == ("files",) or (at[0] in ("files", "cuts") and (at[-1] in ("path", "file") or "each" in at))


@pytest.mark.parametrize("at", [at for at in LEAVES if not is_reference(at)], ids=label)
def test_both_agree_on_every_value(at: Place) -> None:
    values: tuple[Any, ...] = (-1, -0.5, 1.5, "text", None, True, [], {})
    for new in values:
        value = replaced(PLAIN, at, new)
        assert is_valid(value) == is_read(value), new


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.sampled_from(sorted(set(places(PLAIN)) - {()}, key=str)), st.data())
def test_both_agree_on_anything_anywhere(at: Place, data: st.DataObject) -> None:
    anything = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-2, 2)
        | st.floats(-2, 2).filter(lambda x: x % 1)
        | st.text(max_size=2),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    )
    new = data.draw(anything)
    value = replaced(PLAIN, at, new)
    assert is_reference(at) or is_valid(value) == is_read(value), value
