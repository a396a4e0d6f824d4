"""Write what was fitted: coefficients as TOML, tables into docs/prediction.md."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.fit.tables import PER

_HEADER = "# Written by benchmarks/fit_targets.py; do not edit. docs/prediction.md says how it was made.\n"


def rounded(value: float) -> float:
    """Return *value* with three digits: no coefficient is known better."""
    return float(f"{value:.3g}")


def term(
    name: str,
    cost: float,
    threads: float,
    spread: float,
    source: str,
    confidence: str,
    per: str | None = None,
) -> str:
    """Return one [terms.*] table."""
    return (
        f'\n[terms.{name}]\nper = "{per or PER[name]}"\ncost = {rounded(cost)!r}\n'
        f"threads = {round(float(threads), 2) + 0.0!r}\nspread = {round(float(spread), 2)!r}\n"
        f'source = "{source}"\nconfidence = "{confidence}"\n'
    )


def quantity(table: str, value: float, source: str, confidence: str = "fitted") -> str:
    """Return a table that holds one number."""
    return f'\n[{table}]\nvalue = {rounded(value)!r}\nsource = "{source}"\nconfidence = "{confidence}"\n'


def family(name: str, factors: Sequence[float], source: str) -> str:
    """Return one [[families]] table; *factors* are of the whole, memory, units."""
    whole, memory, unit = (rounded(factor) for factor in factors)
    return (
        f'\n[[families]]\nname = "{name}"\nwhole = {whole!r}\nmemory = {memory!r}\nunit = {unit!r}\n'
        f'source = "{source}"\nconfidence = "fitted"\n'
    )


def core(name: str, its_family: str, whole: float, machines: int, source: str) -> str:
    """Return one [[cores]] table."""
    return (
        f'\n[[cores]]\nname = "{name}"\nfamily = "{its_family}"\nwhole = {rounded(whole)!r}\n'
        f'machines = {machines}\nsource = "{source}"\nconfidence = "fitted"\n'
    )


def coefficients(path: Path, description: str, parts: Iterable[str]) -> None:
    """Write one set of coefficients."""
    path.parent.mkdir(exist_ok=True)
    text = f'{_HEADER}\nname = "{path.stem}"\ndescription = "{description}"\n{"".join(parts)}'
    path.write_text(text, encoding="utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def percent(share: float) -> str:
    """Return for example "18.2 %"."""
    return f"{100 * share:.1f} %"


def into_docs(path: Path, sections: dict[str, str]) -> None:
    """Replace what stands between the markers of each section."""
    text = path.read_text(encoding="utf-8")
    for name, content in sections.items():
        before, found, after = text.partition(f"<!-- {name} -->")
        _, ended, rest = after.partition(f"<!-- end {name} -->")
        if not found or not ended:
            raise SystemExit(f"{path} has no place for '{name}'")
        text = f"{before}{found}\n{content}{ended}{rest}"
    path.write_text(text, encoding="utf-8")
