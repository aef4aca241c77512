"""The report as tables, which both formats show. Nothing in it depends on when, where or by whom it was made."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field

from fuseline.examples.stdlib_report.facts import BrokenFile
from fuseline.examples.stdlib_report.ranking import Ranking


@dataclass(frozen=True, slots=True)
class Table:
    """Columns with a heading; the first is text, `bar` is the index of the one that is drawn as a bar (or None)."""

    title: str
    explanation: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    bar: int | None = None

    def is_number(self, column: int) -> bool:
        """Whether every cell of the column is a number."""
        return all(row[column].replace(",", "").replace(".", "").isdecimal() for row in self.rows)


@dataclass(frozen=True, slots=True)
class Report:
    """All that is told: a headline, figures, tables."""

    title: str
    subtitle: str
    figures: list[tuple[str, str]]
    tables: list[Table] = field(default_factory=list)


def make_report(ranking: Ranking, broken: list[BrokenFile], *, beside: bool) -> Report:
    """Everything as text, in the order of telling. `beside`: installed packages were read as well."""
    total = ranking.total
    return Report(
        title="The Python standard library, measured",
        subtitle=f"Every Python file that comes with {platform.python_implementation()} "
        f"{platform.python_version()}{' or is installed beside it' if beside else ''}, "
        "parsed to its syntax tree.",
        figures=[
            ("files", number(total.files + len(broken))),
            ("packages and modules", number(ranking.packages)),
            ("lines of code", number(total.code)),
            ("functions", number(total.functions)),
            ("classes", number(total.classes)),
            ("complexity of a function", f"{total.mean_complexity:.2f}"),
            ("documented", f"{total.documented_percent:.0f} %"),
            ("files that do not parse", number(len(broken))),
        ],
        tables=[*_packages(ranking), _imports(ranking), _functions(ranking), _broken(broken)],
    )


def number(value: int) -> str:
    """With a comma between thousands."""
    return f"{value:,}"


def _packages(ranking: Ranking) -> list[Table]:
    return [
        Table(
            "The largest",
            "By lines of code: neither blank nor comment nor docstring.",
            ("package", "code", "files", "comments", "docstrings", "functions", "classes"),
            [
                (
                    one.name,
                    *map(
                        number,
                        (one.code, one.files, one.comments, one.docstrings, one.functions, one.classes),
                    ),
                )
                for one in ranking.largest
            ],
            bar=1,
        ),
        Table(
            "The most intricate",
            "By mean complexity of their functions: one, and one more for each decision.",
            ("package", "mean complexity", "functions", "code"),
            [
                (one.name, f"{one.mean_complexity:.2f}", number(one.functions), number(one.code))
                for one in ranking.most_complex
            ],
            bar=1,
        ),
        Table(
            "The best documented",
            "By the share of modules and public definitions that have a docstring.",
            ("package", "documented %", "definitions", "docstring lines"),
            [
                (one.name, f"{one.documented_percent:.0f}", number(one.documentable), number(one.docstrings))
                for one in ranking.best_documented
            ],
            bar=1,
        ),
    ]


def _imports(ranking: Ranking) -> Table:
    rows = [(one.name, number(one.files)) for one in ranking.most_imported]
    return Table("The most imported", "By files that import them.", ("module", "files"), rows, bar=1)


def _functions(ranking: Ranking) -> Table:
    return Table(
        "The hardest functions",
        "By complexity.",
        ("function", "complexity", "lines", "where"),
        [
            (one.name, number(one.complexity), number(one.lines), f"{one.path}:{one.line}")
            for one in ranking.hardest
        ],
        bar=1,
    )


def _broken(broken: list[BrokenFile]) -> Table:
    return Table(
        "Files that do not parse",
        "Most are there on purpose, to test the parser or its predecessor."
        if broken
        else "None: every file parses.",
        ("file", "kind", "line", "what Python says"),
        [(one.path, one.kind, str(one.line), one.error) for one in broken],
    )
