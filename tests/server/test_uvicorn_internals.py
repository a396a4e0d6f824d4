"""The installed uvicorn has every internal that the server uses."""

import ast
import importlib
import inspect
import textwrap

import pytest

from splitc.server import http_protocol, serve
from splitc.server.uvicorn_internals import INTERNALS


def attributes(tree: ast.AST, owner: str) -> list[ast.Attribute]:
    """Return the attributes of *owner*, such as "self.flow", that *tree* reads or writes."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == owner
    ]


def class_tree(cls: type) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(cls)))


def names_of(cls: type) -> set[str]:
    """Return the names that a class has: those of the class, and those that its methods assign to `self`."""
    bases = [base for base in cls.__mro__ if base.__module__.partition(".")[0] == "uvicorn"]
    assigned = {
        node.attr
        for base in bases
        for node in attributes(class_tree(base), "self")
        if isinstance(node.ctx, ast.Store)
    }
    return assigned.union(dir(cls))


@pytest.mark.parametrize("path", INTERNALS)
def test_the_installed_uvicorn_has_what_the_server_uses(path: str) -> None:
    module, _, name = path.partition(":")
    cls = getattr(importlib.import_module(module), name, None)
    assert cls is not None, f"the installed uvicorn has no {path}; adapt splitc/server to this release"
    missing = sorted(INTERNALS[path] - names_of(cls))
    assert not missing, (
        f"{path} of the installed uvicorn lacks {', '.join(missing)}; adapt splitc/server to it"
    )


@pytest.mark.parametrize(
    ("cls", "owners", "path"),
    [
        (
            http_protocol.Protocol,
            ("self", "super()"),
            "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol",
        ),
        (
            http_protocol.Protocol,
            ("cycle", "self.cycle"),
            "uvicorn.protocols.http.httptools_impl:RequestResponseCycle",
        ),
        (http_protocol.Protocol, ("self.flow",), "uvicorn.protocols.http.flow_control:FlowControl"),
        (serve.Server, ("self", "super()"), "uvicorn.server:Server"),
        (serve.Server, ("self.lifespan",), "uvicorn.lifespan.on:LifespanOn"),
    ],
)
def test_the_table_names_every_internal_in_use(cls: type, owners: tuple[str, ...], path: str) -> None:
    tree = class_tree(cls)
    methods = {
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    own = set[str]()
    if "self" in owners:
        stored = {node.attr for node in attributes(tree, "self") if isinstance(node.ctx, ast.Store)}
        own = (stored | methods) - INTERNALS[path]
    used = {node.attr for owner in owners for node in attributes(tree, owner)} - own - {"__init__"}
    unlisted = sorted(used - INTERNALS[path])
    assert not unlisted, f"add {', '.join(unlisted)} of {path} to splitc/server/uvicorn_internals.py"
    uncalled = sorted(INTERNALS[path] - used - methods)
    assert not uncalled, f"remove {', '.join(uncalled)} of {path} from splitc/server/uvicorn_internals.py"
