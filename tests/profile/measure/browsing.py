"""A real browser for tests, as a phone would be: it opens the address that splitc shows."""

import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
NPM = shutil.which("npm")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or NPM is None, reason="needs chromium and npm, and one of them is not installed"
)
_FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run
--disable-background-networking --disable-component-update --disable-sync""".split()
PHONE = "phone.test"  # to the browser, another machine than its own: no trusted origin
_END_S = 10


class Phone:
    """Opens the page as soon as splitc says where it is; keeps what else splitc says."""

    def __init__(self, stack: ExitStack, *, untrusted: bool = False) -> None:
        self.said: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._stack, self._untrusted = stack, untrusted

    def __call__(self, line: str) -> None:
        self.said.append(line)
        if found := re.match(r"open (http://\S+)", line):
            address = found[1].replace("127.0.0.1", PHONE) if self._untrusted else found[1]
            self.process = self._stack.enter_context(browser(address))

    def close(self) -> None:
        """As a person does, without a word to the page."""
        assert self.process is not None, "nothing was opened"
        end(self.process)


@contextmanager
def phone(*, untrusted: bool = False) -> Iterator[Phone]:
    with ExitStack() as stack:
        yield Phone(stack, untrusted=untrusted)


@contextmanager
def browser(address: str) -> Iterator[subprocess.Popen[bytes]]:
    assert CHROMIUM is not None, "the test is skipped without it"
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [
                CHROMIUM,
                *_FLAGS,
                f"--host-resolver-rules=MAP {PHONE} 127.0.0.1",
                f"--user-data-dir={folder}",
                address,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End the browser and all that it started."""
    with psutil_gone():
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in family:
            with psutil_gone():
                child.kill()
        psutil.wait_procs(family, timeout=_END_S)
    process.wait()


@contextmanager
def psutil_gone() -> Iterator[None]:
    """A process may end while one looks at it."""
    try:
        yield
    except psutil.NoSuchProcess:
        return


@contextmanager
def slowed(
    process: Callable[[], subprocess.Popen[bytes] | None], stopped_s: float, running_s: float
) -> Iterator[None]:
    """Stop what runs the pages of a browser again and again, as a slower processor would be slow."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            pages = _renderers(process())
            until = time.monotonic() + 0.5  # then look for new ones
            while pages and not over.is_set() and time.monotonic() < until:
                _each(pages, "suspend")
                time.sleep(stopped_s)
                _each(pages, "resume")
                time.sleep(running_s)
            if not pages:
                time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _renderers(process: subprocess.Popen[bytes] | None) -> list[psutil.Process]:
    found = []
    with psutil_gone():
        for child in psutil.Process(process.pid).children(recursive=True) if process else []:
            with psutil_gone():
                if "--type=renderer" in child.cmdline():
                    found.append(child)
    return found


def _each(processes: list[psutil.Process], action: str) -> None:
    for process in processes:
        with psutil_gone():
            getattr(process, action)()


def fake_npm(folder: Path, script: str) -> Path:
    """A folder for PATH in which npm is the shell *script*."""
    folder.mkdir()
    npm = folder / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    npm.chmod(0o755)
    return folder
