"""The internals of uvicorn that the server relies on.

uvicorn documents none of these names as public, so any minor release may change them. That is why pyproject.toml
limits its version. To allow a newer release, run tests/server/test_uvicorn_internals.py with it first: the test
names each attribute that the release lacks, and each attribute that the server uses but this table lacks.
"""

from collections.abc import Mapping

# By class, as `module:class`: the attributes and methods that `http_protocol` and `serve` use or override.
INTERNALS: Mapping[str, frozenset[str]] = {
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol": frozenset(
        {
            "_unset_keepalive_if_required",
            "app",
            "client",
            "connection_lost",
            "connection_made",
            "connections",
            "cycle",
            "flow",
            "headers",
            "loop",
            "on_body",
            "on_header",
            "on_headers_complete",
            "on_message_begin",
            "on_message_complete",
            "on_response_complete",
            "parser",
            "pause_writing",
            "pipeline",
            "resume_writing",
            "scheme",
            "scope",
            "transport",
            "url",
        }
    ),
    "uvicorn.protocols.http.httptools_impl:RequestResponseCycle": frozenset(
        {
            "body",
            "disconnected",
            "keep_alive",
            "message_event",
            "more_body",
            "response_complete",
            "response_started",
            "transport",
            "waiting_for_100_continue",
        }
    ),
    "uvicorn.protocols.http.flow_control:FlowControl": frozenset(
        {"pause_reading", "read_paused", "resume_reading"}
    ),
    "uvicorn.server:Server": frozenset(
        {
            "config",
            "handle_exit",
            "lifespan",
            "on_tick",
            "run",
            "server_state",
            "servers",
            "shutdown",
            "startup",
        }
    ),
    "uvicorn.lifespan.on:LifespanOn": frozenset({"state"}),
}
