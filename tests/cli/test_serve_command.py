"""`splitc serve --ray`: what is asked for together; Ray itself is run in tests/server/test_ray_serve.py."""

import os
from pathlib import Path

import pytest

from tests import running
from tests.cli.test_main import assert_sentence, call
from tests.conftest import Tiny


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--replicas", "2"], "--replicas is for --ray; give both or none"),
        (["--ray", "--replicas", "4..2"], "'4..2' is no number of replicas; write it like 2, or like 1..4"),
        (["--ray", "--replicas", "0"], "'0' is no number of replicas"),
        (["--ray", "--replicas", "1..2..3"], "'1..2..3' is no number of replicas"),
        (["--ray", "--tls-cert", "c.pem", "--tls-key", "k.pem"], "--tls-cert is not for --ray"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_sentence(call(capsys, "serve", "bundle", *options), 2, words)


def test_without_ray_the_extra_is_named(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = running.splitc(
        "serve", tiny.bundle.folder, "--ray", cwd=tmp_path, env={"PYTHONPATH": os.pathsep.join(paths)}
    )
    assert_sentence(
        done, 1, "`splitc serve --ray` needs ray; install it with `pip install 'splitc[serve,ray]'`"
    )
