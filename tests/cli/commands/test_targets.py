"""`splitc targets`: the list, a single description, and the check of a new one."""

from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from splitc.cli.main import group
from splitc.common.resources import shipped
from splitc.profile.targets.description import load_target, network_names, own_folder, target_names
from tests.cli.printed import printed


@pytest.fixture(autouse=True)
def _no_own_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the targets of the user who runs these tests, and the profiles that other tests keep."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 0) -> tuple[str, list[str]]:
    """Run `splitc targets` in this process; return its output and the lines of stderr."""
    with pytest.raises(SystemExit) as ended:
        group.main(["targets", *map(str, arguments)], prog_name="splitc")
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    return said.out, said.err.splitlines()


def copy_of(name: str, folder: Path, old: str = "", new: str = "", called: str = "board") -> Path:
    """A copy of a shipped target with another name and one change."""
    text = (shipped("targets") / f"{name}.toml").read_text(encoding="utf-8")
    path = folder / f"{called}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(f'"{name}"', f'"{called}"').replace(old, new), encoding="utf-8")
    return path


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    text, _ = run(capsys)
    lines = [line.split() for line in text.splitlines()]
    for name in (*target_names(), *network_names()):
        assert any(line[:1] == [name] for line in lines), name
    local = next(line for line in text.splitlines() if line.split()[:1] == ["local"])
    assert "measured here" in local
    assert "your own" not in text
    assert max(map(len, text.splitlines())) <= 140


def test_the_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    facts = printed("targets", run(capsys, "--json")[0])
    assert [item["name"] for item in facts["targets"]] == list(target_names())
    assert [item["name"] for item in facts["networks"]] == list(network_names())
    assert all(Path(item["file"]).stem == item["name"] for item in facts["targets"] + facts["networks"])
    assert {item["name"]: item["times"] for item in facts["targets"]}["local"] == "measured here"


@pytest.mark.parametrize("name", ["pixel7", "t4", "lte", "local"])
def test_one_in_full(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every number is shown with its unit and source, also as JSON."""
    text, _ = run(capsys, name)
    facts = printed(f"targets-{'network' if name == 'lte' else 'machine'}", run(capsys, name, "--json")[0])
    assert facts["name"] == name
    assert text.startswith(f"{name}: {facts['description']}\n")
    assert facts["file"] in text
    words = " ".join(text.split())
    shown = {
        "pixel7": (
            "4 threads",
            "2x Cortex-X1: clock 2.85 GHz vendor",
            "51.2 GB/s derived LPDDR5-6400 x 64 bit",
        ),
        "t4": (
            "CUDAExecutionProvider, 1 thread",
            "NVIDIA T4: peak, fp32 4.07 TMAC/s derived 2560 fp32 lanes",
        ),
        "lte": (
            "uplink 6.3 Mbit/s (1.92 Mbit/s to 9.75 Mbit/s) measured",
            "round trip 84 ms (68 ms to 106 ms)",
        ),
        "local": ("measured here",),
    }
    for part in shown[name]:
        assert part in words


def test_a_target_file_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy_of("rk3588", tmp_path)
    assert run(capsys, path)[0].startswith("board: boards with Rockchip")
    assert f"file {path}" in " ".join(run(capsys, path)[0].split())
    _, said = run(capsys, "pixle7", code=1)
    assert said[-1].startswith("error: unknown target 'pixle7', did you mean 'pixel7'?")


def test_the_folder_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    """The user's descriptions are listed and marked, and a mistake in one does not hide the others."""
    own = copy_of("rk3588", own_folder())
    copy_of("pixel7", own_folder(), "Google Pixel 7", "my phone", called="pixel7")
    copy_of("pixel6", own_folder(), "[descriptor]", "[descripter]", called="broken")
    text, _ = run(capsys)
    assert f"your own, from {own_folder()}: board, broken, pixel7" in " ".join(text.split())
    assert any(line.split()[:2] == ["board", "device"] for line in text.splitlines())
    assert "my phone" in text
    assert "Google Pixel 7" not in text
    broken = text[text.index("broken") :]
    assert broken.split()[1] == "mistaken"
    facts = printed("targets", run(capsys, "--json")[0])
    assert {"board", "pixel7", "t4"} <= {item["name"] for item in facts["targets"]}
    (mistaken,) = facts["mistaken"]
    assert (mistaken["name"], mistaken["file"]) == ("broken", str(own_folder() / "broken.toml"))
    assert "unknown key 'descripter'" in mistaken["mistake"]
    assert "unknown key 'descripter', did you mean 'descriptor'?" in " ".join(broken.split())
    assert "t4" in text
    assert str(own) in run(capsys, "board")[0].replace("\n", "")


def test_check_a_correct_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = copy_of("rk3588", tmp_path)
    text, said = run(capsys, "check", path)
    assert text.startswith(
        f"{path}: the description of a device is correct: 4x Cortex-A76, 4x Cortex-A55, times predicted"
    )
    assert f"use it with `--device {path}`" in text
    assert said == []
    link = shipped("targets") / "networks" / "lte.toml"
    assert "the description of a network is correct: 6.3 Mbit/s up" in run(capsys, "check", link)[0]


def test_check_a_file_with_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each mistake and warning, and exit code 1; the other files are still checked."""
    bad = copy_of("rk3588", tmp_path, "cores = 4", 'cores = "4"', called="bad")
    good = copy_of("rk3588", tmp_path, 'name = "good"', 'name = "better"', called="good")
    text, said = run(capsys, "check", bad, good, code=1)
    assert said == [
        "error: bad.toml: descriptor.clusters[0].cores: expected an integer, found '4'",
        "error: bad.toml: descriptor.clusters[1].cores: expected an integer, found '4'",
        "warning: good.toml: name: 'better' differs from the file name 'good', by which splitc finds it; make them equal",
    ]
    assert text.startswith(f"{good}: the description of a device is correct")
    facts = printed("targets-check", run(capsys, "check", bad, good, "--json", code=1)[0])
    assert [len(item["mistakes"]) for item in facts] == [2, 0]
    assert [len(item["warnings"]) for item in facts] == [0, 1]
    assert facts[0]["file"] == str(bad)


def test_check_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, said = run(capsys, "check", tmp_path / "none.toml", code=1)
    assert text == ""
    assert said == [
        f"error: cannot read the target description {tmp_path / 'none.toml'}: No such file or directory"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(
            ("check",), "check needs a file, such as `splitc targets check board.toml`", id="no file"
        ),
        pytest.param(("pixel7", "t4"), "give one name at a time; 't4' is a second one", id="two names"),
    ],
)
def test_wrong_usage(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, said = run(capsys, *words, code=2)
    assert message in said[-1]


def test_names_are_completed_in_the_shell() -> None:
    """Names of targets and networks, and the word `check`; after it, files."""

    def offered(*words: str) -> list[str]:
        complete = ShellComplete(group, {}, "splitc", "_SPLITC_COMPLETE")
        return [item.value for item in complete.get_completions(["targets", *words[:-1]], words[-1])]

    assert offered("pixel") == ["pixel6", "pixel7", "pixel8", "pixel9"]
    assert offered("lt") == ["lte"]
    assert offered("che") == ["check"]
    complete = ShellComplete(group, {}, "splitc", "_SPLITC_COMPLETE")
    assert [item.type for item in complete.get_completions(["targets", "check"], "b")] == ["file"]


def test_every_shipped_target_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for name in target_names():
        text, _ = run(capsys, name)
        descriptor = load_target(name).descriptor
        for cluster in descriptor.clusters if descriptor is not None else ():
            assert cluster.core in text
