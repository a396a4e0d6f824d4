"""Digests of JSON values, which name cached files and show whether two sides have the same data."""

import hashlib
import json


def json_sha256(value: object) -> str:
    """Return the SHA-256, in hex, of *value* as JSON with sorted keys.

    Cached files and bundles contain these digests: another format of the JSON would invalidate all of them.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
