"""The graph: list the files; analyse them, 16 shares at once; add up in two stages; triage and ranking; one report.

    find_files -> analyse_00 .. analyse_15 -> add_up_0 .. add_up_3 -> add_up_all
    add_up_all -> rank_packages -----------------------------------+
    add_up_all -> triage -(broken)-> explain_broken --+            v
                         -(clean)--> nothing_broken --+-(either)-> write_report

The report of an interpreter is the same whichever processes made it, in whatever order, and whatever was killed
meanwhile: `write_report` returns its SHA-256, so that two can be compared.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from fuseline.examples.stdlib_report.facts import BrokenFile, Facts, add
from fuseline.examples.stdlib_report.listing import Listing, deal, default_roots, list_files
from fuseline.examples.stdlib_report.metrics import measure
from fuseline.examples.stdlib_report.page_html import to_html
from fuseline.examples.stdlib_report.page_markdown import to_markdown
from fuseline.examples.stdlib_report.ranking import Ranking, rank
from fuseline.examples.stdlib_report.report import make_report
from fuseline.workflow import Branch, Depends, RetryPolicy, Step, TimeoutPolicy, Workflow, step

SHARES = 16
SHARES_ADDED_AT_ONCE = 4


class Written(BaseModel):
    """Where the report is, and what it is about. `sha256` is of both files' contents."""

    model_config = ConfigDict(frozen=True)

    html: str
    markdown: str
    sha256: str
    files: int
    broken: int


@step
def find_files(roots: list[str] | None = None) -> Listing:
    """List every Python file and deal the files out in shares of about the same size."""
    folders = roots or default_roots()
    return Listing(roots=folders, shares=deal(list_files(folders), SHARES))


def _analysing(index: int) -> Step:
    @step(name=f"analyse_{index:02}", policies=[TimeoutPolicy(300), RetryPolicy(max_retries=3, wait=0.5)])
    def analyse(listing: Listing = Depends(find_files)) -> Facts:
        """Parse one share of the files to syntax trees, and count."""
        parts: list[Facts] = []
        for root, paths in sorted(listing.shares[index].items()):
            parts += [_analyse_file(root, path) for path in paths]
        return add(parts)

    return analyse


def _analyse_file(root: str, path: str) -> Facts:
    measured = measure(path, (Path(root) / path).read_bytes())
    if isinstance(measured, BrokenFile):
        return Facts(broken=[measured])
    package, functions = measured
    return Facts(packages={package.name: package}, hardest=functions)


def _adding(name: str, parts: list[Step]) -> Step:
    first, second, third, fourth = parts

    @step(name=name)
    def add_up(
        a: Facts = Depends(first),
        b: Facts = Depends(second),
        c: Facts = Depends(third),
        d: Facts = Depends(fourth),
    ) -> Facts:
        """Add up what four steps counted."""
        return add([a, b, c, d])

    return add_up


analyses = [_analysing(index) for index in range(SHARES)]
sums = [
    _adding(f"add_up_{index}", analyses[index * SHARES_ADDED_AT_ONCE :][:SHARES_ADDED_AT_ONCE])
    for index in range(SHARES // SHARES_ADDED_AT_ONCE)
]
add_up_all = _adding("add_up_all", sums)


@step
def rank_packages(facts: Facts = Depends(add_up_all)) -> Ranking:
    """Find the first of each discipline."""
    return rank(facts)


@step
def triage(facts: Facts = Depends(add_up_all)) -> Branch:
    """Are there files that do not parse?"""
    return Branch("broken", facts.broken) if facts.broken else Branch("clean", [])


@step
def explain_broken(broken: list[BrokenFile] = Depends(triage)) -> list[BrokenFile]:
    """Put the files that do not parse in the order of their kinds."""
    return sorted(broken, key=lambda one: (one.kind, one.path))


@step
def nothing_broken(broken: list[BrokenFile] = Depends(triage)) -> list[BrokenFile]:
    """Every file parses."""
    return broken


(triage - "broken") >> explain_broken
(triage - "clean") >> nothing_broken


@step
def write_report(
    listing: Listing = Depends(find_files),
    ranking: Ranking = Depends(rank_packages),
    broken: list[BrokenFile] = Depends(explain_broken, nothing_broken),
    folder: str = "build/stdlib-report",
) -> Written:
    """Write `report.html` and `report.md` into `folder`."""
    report = make_report(ranking, broken, beside=len(listing.roots) > 1)
    html, markdown = to_html(report), to_markdown(report)
    where = Path(folder).resolve()
    where.mkdir(parents=True, exist_ok=True)
    _write(where / "report.html", html)
    _write(where / "report.md", markdown)
    return Written(
        html=str(where / "report.html"),
        markdown=str(where / "report.md"),
        sha256=hashlib.sha256(html.encode() + markdown.encode()).hexdigest(),
        files=ranking.total.files + len(broken),
        broken=len(broken),
    )


def _write(file: Path, text: str) -> None:
    """Whole or not at all: another attempt of this step may be writing the same, or may be killed half way."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


stdlib_report = Workflow(
    outputs=[write_report],
    workflow_id="stdlib-report",
    version="1",
    description="The standard library of this interpreter, parsed, counted, ranked and written up",
)
