"""Names come from files of other people: nothing that is shown may steer a terminal or hide text."""

import ast
import io
import json
import re
import sys
from pathlib import Path

import onnx
import pytest

import splitc.cli
from splitc.cli.main import group
from splitc.cli.streams import say, tell
from splitc.cli.terminal import Text, lines, new_table, results, stages
from splitc.common.formatting import escape_controls
from tests import models
from tests.running import fast_cloud, slow_device

EVIL = "\x1b]0;owned\x07\x9b2J\rhid\u202eden\u2066\n\x7ferror: done"
FORBIDDEN = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain µ • 模型", "plain µ • 模型"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x9b\x7f", "\\x9b\\x7f"),
        ("\u202eabc\u2069", "\\u202eabc\\u2069"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_is_escaped(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


def test_every_way_to_print(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    tell(EVIL)
    with stages() as progress:
        progress(EVIL)
    console = results()
    console.print(EVIL)
    console.print(Text(EVIL, style="yellow"))
    console.print(Text.assemble((EVIL, "bold"), EVIL))
    table = new_table(EVIL)
    table.add_row(EVIL)
    table.add_row(Text(EVIL))
    table.add_row(lines(EVIL, EVIL))
    console.print(table)
    said = capsys.readouterr()
    assert not FORBIDDEN.search(said.out + said.err)
    assert said.out.count("\\x1b]0;owned\\x07") == 10
    assert "\nerror: done" not in said.out + said.err


def test_a_terminal_gets_styles_but_no_escapes_of_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    console = results()
    console._force_terminal = True
    console.print(Text(EVIL, style="bold"))
    assert isinstance(sys.stdout, io.StringIO)
    assert "\x1b]" not in sys.stdout.getvalue()


def test_only_these_modules_write_to_the_terminal() -> None:
    """What prints by other means would print raw names."""
    ways = {"rich.text": "Text", "rich.console": "", "click": "echo", "rich": "print"}
    for path in Path(splitc.cli.__file__).parent.rglob("*.py"):
        if path.name in ("terminal.py", "streams.py"):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                assert ways.get(node.module or "") not in {item.name for item in node.names}, path
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("click.echo", "click.secho", "print", "Console", "sys.stderr.write"), (
                    path
                )


def hostile_model(path: Path) -> Path:
    """A chain whose model, nodes, tensors and ports all have hostile names."""
    built = models.chain()
    renamed = {name: f"{EVIL}{name}" for name in ("a_c", "a", "b", "p", "y", "x", "a_w")}
    for node in built.graph.node:
        node.name = f"{EVIL}{node.name}"
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    for port in (*built.graph.input, *built.graph.output):
        port.name = renamed.get(port.name, port.name)
    for tensor in built.graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    built.graph.name = EVIL
    onnx.save_model(built, path)
    return path


def test_hostile_names_in_every_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = hostile_model(tmp_path / "m\x1b[2J.onnx")
    device, cloud = slow_device(tmp_path), fast_cloud(tmp_path)
    for path in (device, cloud):
        text = path.read_text(encoding="utf-8").replace('"made up"', '"made \\u001b[2J \\u202e up"')
        path.write_text(text, encoding="utf-8")
    bundle = tmp_path / "out\x1b[2J"
    common = [
        "--device",
        str(device),
        "--cloud",
        str(cloud),
        "--no-cache",
        "--no-simplify",
        "-o",
        str(bundle),
    ]
    runs = [
        (0, ["inspect", str(model), "--no-simplify"]),
        (0, ["inspect", str(model), "--no-simplify", "--tensors"]),
        (0, ["inspect", str(model), "--no-simplify", "--json"]),
        (0, ["compile", str(model), *common]),
        (0, ["inspect", str(bundle)]),
        (0, ["inspect", str(bundle), "--json"]),
        (0, ["verify", str(bundle), "--model", str(model)]),
        (0, ["pack", str(bundle), "--side", "cloud", "-o", str(tmp_path / "c.zip")]),
        (0, ["run", str(bundle), "--repeat", "1"]),
        (0, ["targets", str(device)]),
        (0, ["targets", "check", str(device)]),
        (1, ["compile", str(model), *common, "--pin-device", f"{EVIL}z"]),
        (1, ["inspect", str(tmp_path / "no\x1b[2J.onnx")]),
        (1, ["inspect", str(tmp_path / "no\x1b\udcff.onnx")]),
        (1, ["inspect", str(tmp_path / "no\udcff")]),
        (1, ["inspect", str(device)]),
        (2, ["inspect", str(model), "--dim", "\x1b[2J"]),
    ]
    for code, arguments in runs:
        with pytest.raises(SystemExit) as ended:
            group.main(arguments, prog_name="splitc")
        said = capfd.readouterr()
        assert ended.value.code == code, (arguments, said.err)
        assert not FORBIDDEN.search(said.out + said.err), arguments
        if "--json" in arguments:
            assert said.out.isascii()
            assert "\x1b[2J" in str(list(json.loads(said.out).values())).replace("\\x1b", "\x1b")
    assert not FORBIDDEN.search((bundle / "report.html").read_text(encoding="utf-8"))
