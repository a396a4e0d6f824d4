"""What a path asks for, and what no path can."""

import pytest

from splitc.server.routes import Route, find_route


@pytest.mark.parametrize(
    ("path", "route"),
    [
        (b"/v2", Route("server")),
        (b"/v2/health/live", Route("live")),
        (b"/v2/health/ready", Route("ready")),
        (b"/metrics", Route("metrics")),
        (b"/splitc/probe", Route("probe")),
        (b"/v2/models/a.c1", Route("model", "a.c1")),
        (b"/v2/models/a.c1/ready", Route("model ready", "a.c1")),
        (b"/v2/models/a.c1/infer", Route("infer", "a.c1")),
        (b"/v2/models/a.c1/versions/1", Route("model", "a.c1")),
        (b"/v2/models/a.c1/versions/1/ready", Route("model ready", "a.c1")),
        (b"/v2/models/a.c1/versions/1/infer", Route("infer", "a.c1")),
        (b"/v2/models/versions/versions/1/infer", Route("infer", "versions")),
        (b"/v2/models/a%20b%C3%A4/infer", Route("infer", "a bä")),
        (b"/v2/models/..%2F..%2Fetc%2Fpasswd/infer", Route("infer", "../../etc/passwd")),
        (b"/v2/models/%252e/infer", Route("infer", "%2e")),
    ],
)
def test_found(path: bytes, route: Route) -> None:
    assert find_route(path) == route


@pytest.mark.parametrize(
    "path",
    [
        b"",
        b"/",
        b"*",
        b"v2",
        b"/v2/",
        b"//v2",
        b"/V2",
        b"/v2/health",
        b"/v2/health/live/",
        b"/v2/models",
        b"/v2/models/a/versions/2/infer",
        b"/v2/models/a/versions/01/infer",
        b"/v2/models/a/../b/infer",
        b"/v2/models/a/infer/",
        b"/v2/models/a%2Finfer/b",
        b"/v2%2Fhealth%2Flive",
        b"/v2/models/%/infer",
        b"/v2/models/%zz/infer",
        b"/v2/models/%4/infer",
        b"/v2/models/%ff/infer",
        b"/v2/models/%c0%af/infer",
        b"/metrics/../v2",
    ],
)
def test_nothing_there(path: bytes) -> None:
    assert find_route(path) is None
