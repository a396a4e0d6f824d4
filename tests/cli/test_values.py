"""Values with units, as people type them."""

import click
import pytest

from splitc.cli.values import BYTES, DIM, DURATION, ENERGY, NETWORK, TARGET


def label(value: object) -> str:
    return value.name if isinstance(value, click.ParamType) else str(value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (DURATION, "100ms", 0.1),
        (DURATION, " 1.5 S ", 1.5),
        (DURATION, "20us", 2e-5),
        (DURATION, "1e-3s", 1e-3),
        (ENERGY, "0.2J", 0.2),
        (ENERGY, "5mJ", 0.005),
        (BYTES, "2.5MB", 2_500_000),
        (BYTES, "1KiB", 1024),
        (BYTES, "17", 17),
        (DIM, "batch=4", ("batch", 4)),
        (DIM, "a=b=4", ("a=b", 4)),
        (TARGET, "pixel7", "pixel7"),
    ],
    ids=label,
)
def test_good(kind: click.ParamType[object], text: str, value: object) -> None:
    found = kind.convert(text, None, None)
    assert found == pytest.approx(value) if isinstance(value, float) else found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(
            (DURATION, text)
            for text in ("", "100", "ms", "-1s", "0s", "1..2s", "nan", "infs", "1e999s", "5 parsecs")
        ),
        *((BYTES, text) for text in ("1.5.5", "MB", "1XB", "0")),
        *((ENERGY, text) for text in ("1", "1W")),
        *(
            (DIM, text)
            for text in (
                "",
                "batch",
                "batch=",
                "=4",
                "batch=-1",
                "batch=²",
                f"batch={'9' * 5000}",
                "batch=x",
                "batch=1.5",
            )
        ),
    ],
    ids=label,
)
def test_bad(kind: click.ParamType[object], text: str) -> None:
    with pytest.raises(click.BadParameter, match=f"invalid {kind.name} |is not {kind.name} "):
        kind.convert(text, None, None)


def test_names_are_completed() -> None:
    parameter, context = click.Option(["--x"]), click.Context(click.Command("x"))
    assert "pixel7" in [item.value for item in TARGET.shell_complete(context, parameter, "pix")]
    assert [item.value for item in NETWORK.shell_complete(context, parameter, "lt")] == ["lte"]
