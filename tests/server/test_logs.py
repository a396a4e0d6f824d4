"""One line of JSON for each event; the same thing once."""

import json
import logging
import sys
import threading

import pytest

from splitc.server.logs import JsonLines, LogWriter, Once, log_to_stderr


def test_a_record_is_one_line() -> None:
    try:
        int("two\nlines")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "f", 1, "failure", None, sys.exc_info())
    record.fields = {"peer": "a\nb", "status": 500, "said": KeyError("x" * 1000)}
    text = JsonLines().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["event"], line["level"], line["peer"], line["status"]) == ("failure", "error", "a\nb", 500)
    assert len(line["said"]) == 300
    assert line["traceback"].endswith(r"with base 10: 'two\nlines'")
    assert line["time"].endswith("+00:00")


def test_stderr_gets_what_others_find_worth_an_error_as_well(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("splitc.server", "uvicorn.error", "asyncio")
    before = [(logging.getLogger(name), *_state(logging.getLogger(name))) for name in names]
    try:
        log_to_stderr()
        for logger, *_ in before:
            logger.warning("loud")
            logger.error("wrong")
        before[0][0].handlers[0].flush()
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["loud", "wrong", "wrong", "wrong"]


def _state(logger: logging.Logger) -> tuple[list[logging.Handler], int, bool]:
    return logger.handlers, logger.level, logger.propagate


def test_once() -> None:
    once = Once(period_s=1000.0)
    assert [once.first("a", "x"), once.first("a", "x"), once.first("b", "x"), once.first("a", "y")] == [
        True,
        False,
        True,
        True,
    ]


def test_again_after_a_while() -> None:
    once = Once(period_s=0.0)
    assert [once.first("a"), once.first("a")] == [True, True]


def test_memory_is_bounded() -> None:
    once = Once(most=2)
    for peer in "abc":
        assert once.first(peer)
    assert once.first("a")
    assert not once.first("c")


def test_lines_that_nobody_reads_are_dropped_and_counted() -> None:
    written: list[str] = []
    begun, reads = threading.Event(), threading.Event()

    def write(line: str) -> None:
        begun.set()
        assert reads.wait(60)
        written.append(line)

    writer = LogWriter(write, max_waiting=3)
    writer.handle(_record("first"))
    assert begun.wait(60)
    for number in range(10):
        writer.handle(_record(f"line {number}"))
    reads.set()
    writer.flush()
    lines = [json.loads(line) for line in written]
    assert [line["event"] for line in lines] == ["first", "dropped", "line 0", "line 1", "line 2"]
    assert lines[1]["lines"] == 7


def _record(event: str) -> logging.LogRecord:
    return logging.LogRecord("splitc.server", logging.WARNING, "", 0, event, None, None)


def test_the_same_error_of_others_is_written_once(capfd: pytest.CaptureFixture[str]) -> None:
    names = ("splitc.server", "uvicorn.error", "asyncio")
    before = [(logging.getLogger(name), *_state(logging.getLogger(name))) for name in names]
    try:
        log_to_stderr()
        for _ in range(3):
            logging.getLogger("uvicorn.error").error("failed", exc_info=RuntimeError("x"))
        logging.getLogger("asyncio").handlers[0].flush()
    finally:
        for logger, handlers, level, propagate in before:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
    assert len(capfd.readouterr().err.splitlines()) == 1
