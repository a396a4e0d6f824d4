"""`splitc demo` for two seconds, where a test bed can be created."""

import pytest

from splitc.cli.main import group
from splitc.common.errors import TestBedError
from splitc.testbed.bed import Bed
from splitc.testbed.spec import LinkSpec, Rate
from tests.cli.printed import printed
from tests.cli.test_main import assert_sentence, call
from tests.conftest import Tiny


@pytest.fixture(scope="module", autouse=True)
def bed() -> None:
    try:
        Bed(LinkSpec(Rate(1e7), Rate(1e7), rtt_s=0.01, queue_bytes=1 << 20)).close()
    except TestBedError as error:
        pytest.skip(str(error))


def test_every_decision_is_shown(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--bundle", str(tiny.bundle.folder), "--seconds", "2s", "--slowdown", "1"]
    group.main(arguments, standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "tiny_cnn on a device 1 times slower than this machine; lte: uplink mostly 1.92 Mbit/s"
    )
    shown = [line for line in lines if " predicted " in line]
    assert f"{len(shown)} requests, all answered" in lines


def test_json(tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["demo", "--bundle", str(tiny.bundle.folder), "--seconds", "1s", "--slowdown", "2", "--json"]
    group.main(arguments, standalone_mode=False)
    told = printed("demo", capsys.readouterr().out)
    assert {item["request"]["cut"] for item in told} <= {cut.id for cut in tiny.bundle.manifest.cuts}


def test_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert_sentence(call(capsys, "demo", "--slowdown", "0.5"), 2, "--slowdown")
    assert_sentence(call(capsys, "demo", "--bundle", "nothing"), 1, "nothing")
