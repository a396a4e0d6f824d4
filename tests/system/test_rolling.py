"""Apps go on while the bundles of their server are rebuilt, replaced and removed."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path

from splitc.bundle.folder import Bundle, read_bundle, write_manifest
from splitc.bundle.pairing import pairing
from splitc.runtime.session import Session
from tests.system.serving import FAST, App, Crowd, Server, serving, times, until
from tests.system.test_nothing_lost import Ledger

DEADLINE_S = 1.0


def put(bundle: Bundle, folder: Path) -> Path:
    """Copy *bundle* beside its place, then move it there, as a deployment does."""
    partial = folder.with_name(f".{folder.name}")
    shutil.copytree(bundle.folder, partial)
    partial.rename(folder)
    return folder


def reload(server: Server) -> None:
    before = len(reloads(server))
    server.process.send_signal(signal.SIGHUP)
    until(lambda: len(reloads(server)) > before, "the server has read the bundles again")


def reloads(server: Server) -> list[int]:
    return [line["parts"] for line in server.log() if line["event"] == "reload" and "parts" in line]


def rebuilt(bundle: Bundle, folder: Path) -> Path:
    """The same cuts in another order under other names, with other times: as from a build with a new profile."""
    manifest = bundle.manifest
    cuts = tuple(
        replace(cut, id=f"n{number}", uplink_bytes=cut.uplink_bytes + 1)
        for number, cut in enumerate(reversed(manifest.cuts))
    )
    put(bundle, folder)
    write_manifest(folder, replace(manifest, cuts=cuts, notes=("built again",)))
    return folder


def test_a_rolling_update(app: App, namesake: App, tmp_path: Path) -> None:
    """Old apps and new ones are served side by side, then the old ones are gone."""
    folder = tmp_path / "served"
    folder.mkdir()
    old = put(app.bundle, folder / "old")
    shipped = shutil.copytree(app.bundle.folder, tmp_path / "shipped")
    with (
        serving(folder, "--cache-dir", tmp_path / "cache") as server,
        Session(shipped, server=server.url, start=FAST, deadline_s=DEADLINE_S) as session,
    ):
        ledger = Ledger(app, session)
        count = times(20, 5000)
        with Crowd(2, ledger.request):
            ledger.wait_for_more("cloud", count)
            put(namesake.bundle, folder / "new")
            reload(server)
            ledger.wait_for_more("cloud", count)
            with Session(namesake.bundle.folder, server=server.url, start=FAST) as second:
                newer = Ledger(namesake, second)
                with Crowd(1, newer.request):
                    newer.wait_for_more("cloud")
                newer.check()
            rebuilt(app.bundle, folder / "rebuilt")
            shutil.rmtree(old)
            reload(server)
            ledger.wait_for_more("cloud", count)
        assert server.value("splitc_refusals_total", reason="bundle") == 0
        ledger.check()
        shutil.rmtree(folder / "rebuilt")
        reload(server)
        with Crowd(2, ledger.request):
            ledger.wait_for_more("device", count)
        assert server.value("splitc_refusals_total", reason="bundle") > 0
        ledger.check()


def test_a_damaged_bundle_changes_nothing(app: App, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    put(app.bundle, folder / "one")
    with serving(folder, "--cache-dir", tmp_path / "cache") as server:
        with (put(app.bundle, folder / "two") / "manifest.json").open("a") as stream:
            stream.write("?")
        server.process.send_signal(signal.SIGHUP)
        until(
            lambda: any(line["event"] == "reload" and "failed" in line for line in server.log()),
            "the server says why",
        )
        with Session(app.bundle.folder, server=server.url, start=FAST) as session:
            ledger = Ledger(app, session)
            with Crowd(1, ledger.request):
                ledger.wait_for_more("cloud")
        ledger.check()


def test_a_rebuild_pairs_with_what_was_shipped(app: App, tmp_path: Path) -> None:
    before = {pairing(app.bundle.manifest, cut) for cut in app.bundle.manifest.cuts}
    after = read_bundle(rebuilt(app.bundle, tmp_path / "again")).manifest
    assert {pairing(after, cut) for cut in after.cuts} == before
