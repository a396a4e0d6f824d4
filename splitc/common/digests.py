"""Digests of JSON values: names of cached files, and checks that two sides hold the same facts."""

import hashlib
import json


def json_sha256(value: object) -> str:
    """Return the SHA-256, in hex, of *value* as JSON with sorted keys.

    Kept files and bundles hold these digests: another spelling of the JSON would make all of them stale.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
