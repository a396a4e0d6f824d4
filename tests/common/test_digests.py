"""Digests of JSON stay the same between versions, since kept files carry them."""

import hashlib

from splitc.common.digests import json_sha256


def test_is_the_sha256_of_json_with_sorted_keys() -> None:
    expected = hashlib.sha256(b'{"a": [1, null], "b": "\\u00e9"}').hexdigest()
    assert json_sha256({"b": "é", "a": [1, None]}) == expected
