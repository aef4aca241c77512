"""The report is one file of valid markup, whatever the names in it are, and tells nothing about when it was made."""

from __future__ import annotations

from html.parser import HTMLParser

from fuseline.examples.stdlib_report.facts import BrokenFile, Facts, Function, PackageFacts
from fuseline.examples.stdlib_report.page_html import to_html
from fuseline.examples.stdlib_report.page_markdown import to_markdown
from fuseline.examples.stdlib_report.ranking import SHOWN, rank
from fuseline.examples.stdlib_report.report import make_report

VOID = {"meta", "br"}


class Checker(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def facts() -> Facts:
    packages = {
        f"p{i}": PackageFacts(
            name=f"p{i}",
            files=1,
            lines=100 + i,
            functions=40,
            complexity=40 * (i + 1),
            documentable=40,
            documented=i,
            imports={"os": 1},
        )
        for i in range(30)
    }
    hardest = [Function(name="__init__|<x>", path="a_b/c.py", line=3, lines=9, complexity=50)]
    return Facts(packages=packages, hardest=hardest)


BROKEN = [BrokenFile(path="bad.py", line=2, error="invalid <character> | '€'", kind="syntax")]


def test_html_is_well_formed_and_needs_nothing_beside_it() -> None:
    checker = Checker()
    checker.feed(to_html(make_report(rank(facts()), BROKEN, beside=False)))
    assert checker.open == []
    assert checker.links == []


def test_names_with_markup_in_them_are_shown_as_they_are() -> None:
    report = make_report(rank(facts()), BROKEN, beside=False)
    assert "__init__|&lt;x&gt;" in to_html(report)
    markdown = to_markdown(report)
    assert r"\_\_init\_\_\|&lt;x>" in markdown
    rows = [line for line in markdown.splitlines() if "\\_\\_init" in line]
    assert [row.replace(r"\|", "").count("|") for row in rows] == [5]


def test_the_ranking_has_the_first_of_each_discipline_and_no_more() -> None:
    ranking = rank(facts())
    assert [one.name for one in ranking.largest[:2]] == ["p29", "p28"]
    assert [one.name for one in ranking.most_complex[:2]] == ["p29", "p28"]
    assert [one.name for one in ranking.best_documented[:2]] == ["p29", "p28"]
    assert len(ranking.largest) == SHOWN
    assert [(one.name, one.files) for one in ranking.most_imported] == [("os", 30)]


def test_means_are_not_taken_of_too_little() -> None:
    tiny = PackageFacts(name="tiny", files=1, functions=1, complexity=99, documentable=1, documented=1)
    ranking = rank(Facts(packages={"tiny": tiny}))
    assert ranking.most_complex == ranking.best_documented == []


def test_the_files_that_do_not_parse_count_as_files() -> None:
    report = make_report(rank(facts()), BROKEN, beside=False)
    assert ("files", "31") in report.figures
    assert ("files that do not parse", "1") in report.figures


def test_nothing_broken_says_so() -> None:
    report = make_report(rank(facts()), [], beside=True)
    assert "None: every file parses." in to_markdown(report)
    assert "or is installed beside it" in to_markdown(report)
