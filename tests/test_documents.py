"""What the documents refer to exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("", "docs", "examples", "targets", "artifacts", "benchmarks/data")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))


def anchors(path: Path) -> set[str]:
    """How a hosting page names the headings of *path*."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        found = path if not file else (path.parent / file).resolve()
        assert found.exists(), target
        if anchor:
            assert anchor in anchors(found), target


def test_the_readme_names_every_document() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "targets/README.md", "examples/README.md"):
        assert f"]({name}" in text, name
    for path in (ROOT / "docs").glob("*.md"):
        assert f"](docs/{path.name}" in text, path.name


def test_the_architecture_names_every_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\|[ \d]+\| `(\w+)` \|", text, re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "splitc").glob("*/__init__.py")}
    assert named == packages


def test_the_architecture_names_files_that_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(files) > 10
    for file in files:
        assert (ROOT / "splitc" / file).is_file(), file
