"""From samples to what people and programs read."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuseline.bench import page, results, svg
from fuseline.bench.bars import BARS, Verdict, judge
from fuseline.bench.cpu import cpu_seconds
from fuseline.bench.results import results_of
from fuseline.bench.rounds import Progress, measure
from fuseline.bench.samples import Sample, Timing
from fuseline.bench.systems import Place, Setting, System
from fuseline.bench.works import WORKS, Metric, Work
from tests.unit.bench.made import measured


def test_figures_are_medians_with_their_range() -> None:
    found = results_of([measured("floor", "W1", 1.0, 4.0, 2.0), measured("floor", "W2", 0.04)])
    w1 = [(one.metric, one.median, one.min, one.max, one.rounds) for one in found if one.work == "W1"]
    assert w1 == [(Metric.STEPS_PER_S, 2500, 1250, 5000, 3), (Metric.SECONDS, 2, 1, 4, 3)]
    (w2,) = [one for one in found if one.work == "W2"]
    assert w2.metric is Metric.P50_MS_A_HOP
    assert w2.median == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(1.0, Verdict.REACHED), (1.66, Verdict.REACHED), (1.7, Verdict.MISSED)]
)
def test_a_rate_is_held_against_the_floor(seconds: float, verdict: Verdict) -> None:
    judged = judge(results_of([measured("floor", "W1", 1.0), measured("fuseline", "W1", seconds)]))
    (one,) = [
        one for one in judged if one.bar.work == "W1" and one.bar.system == "fuseline" and not one.bar.fusion
    ]
    assert one.verdict is verdict
    assert one.ratio == pytest.approx(1 / seconds)


@pytest.mark.parametrize(("seconds", "verdict"), [(1.75, Verdict.REACHED), (1.76, Verdict.MISSED)])
def test_a_time_is_held_against_the_floor(seconds: float, verdict: Verdict) -> None:
    judged = judge(results_of([measured("floor", "W3-1000", 1.0), measured("fuseline", "W3-1000", seconds)]))
    assert [one.verdict for one in judged if one.bar.work == "W3-1000"] == [verdict]


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    judged = judge(results_of([measured("fuseline", "W1", 1.0), measured("fuseline-local", "W1", 0.1)]))
    verdicts = {str(one.bar) + one.bar.system: one.verdict for one in judged if one.bar.work == "W1"}
    assert verdicts == {
        ">= 0.6 x floorfuseline": Verdict.UNKNOWN,
        ">= 1.1 x floorfuseline": Verdict.UNKNOWN,
        ">= 10,000fuseline-embedded": Verdict.UNKNOWN,
        ">= 20,000fuseline-local": Verdict.REACHED,
    }


def test_fused_figures_have_bars_of_their_own() -> None:
    found = [measured("floor", "W1", 1.0), measured("fuseline", "W1", 0.8, fusion=True)]
    reached = [one.bar for one in judge(results_of(found)) if one.verdict is not Verdict.UNKNOWN]
    assert [(bar.fusion, bar.bound) for bar in reached] == [(True, 1.1)]
    assert {bar.work for bar in BARS} <= WORKS.keys()


def test_the_files_hold_what_was_promised(tmp_path: Path) -> None:
    results.write(tmp_path, [measured("floor", "W1", 1.0, 2.0), measured("fuseline", "W2", 1.0)], 1.0)
    rows = json.loads((tmp_path / "results.json").read_text())
    for row in rows:
        assert row.keys() == {"system", "work", "fusion", "metric", "median", "min", "max", "rounds"}
    assert [(row["system"], row["work"], row["metric"], row["median"]) for row in rows] == [
        ("floor", "W1", "steps_per_s", pytest.approx((5000 + 2500) / 2)),
        ("floor", "W1", "seconds", 1.5),
        ("fuseline", "W2", "p50_ms_a_hop", 50.0),
    ]
    details = json.loads((tmp_path / "details.json").read_text())
    assert details["costs"][0]["cpu_ms_per_step"] == {"coordinator": pytest.approx(0.15)}
    assert details["costs"][0]["counts_per_step"] == {"messages": 2.0}
    assert len(details["samples"]) == 3


def test_a_page_keeps_what_people_wrote_around_the_figures(tmp_path: Path) -> None:
    file = tmp_path / "speed.md"
    file.write_text(f"# Speed\n\nby hand\n\n{page.BEGIN}\nold\n{page.END}\n\n## More\n\nby hand too\n")
    found = [measured("floor", "W1", 1.0), measured("fuseline", "W1", 9.0)]
    for _ in range(2):
        page.write(file, found, 1.0)
        text = file.read_text()
        assert text.startswith("# Speed\n\nby hand\n\n" + page.BEGIN)
        assert text.endswith(page.END + "\n\n## More\n\nby hand too\n")
        assert "old" not in text
        assert (
            "| W1 | fuseline | 5,000 steps/s | 556 steps/s | 0.11 | >= 0.6 x floor | **not reached** |"
            in text
        )
    assert "made smaller" not in file.read_text()
    page.write(tmp_path / "new.md", found, 0.1)
    assert "made smaller by 0.1" in (tmp_path / "new.md").read_text()


def test_the_plots_are_pictures_that_show_every_figure(tmp_path: Path) -> None:
    page.write(tmp_path / "p.md", [measured("floor", "W1", 1.0, 3.0), measured("fuseline", "W2", 1.0)], 1.0)
    pictures = {file.name: ET.fromstring(file.read_text()) for file in (tmp_path / "p").glob("*.svg")}
    assert {"throughput.svg", "latency.svg"} == pictures.keys()
    told = {text.text for text in pictures["throughput.svg"].iter("{http://www.w3.org/2000/svg}text")}
    assert {"floor", "3,333 steps/s"} <= told
    for name in pictures:
        assert f"(p/{name})" in (tmp_path / "p.md").read_text()


def test_names_are_not_taken_for_markup() -> None:
    made = svg.bars("a < b", [svg.Group("<script>", [svg.Bar("x & y", 1.0, "<1>")])])
    assert {"a < b", "<script>", "x & y", "<1>"} <= {one.text for one in ET.fromstring(made)}


class Played(System):
    """Notes its turns."""

    def __init__(self, name: str, turns: list[str], needs_servers: bool) -> None:
        self.name = name  # type: ignore[misc]  # the test has several
        self.needs_servers = needs_servers  # type: ignore[misc]
        self._turns = turns

    def measure(self, work: Work, place: Place | None, setting: Setting) -> Sample:
        url = "none" if place is None else place.amqp_url
        self._turns.append(f"{self.name} {work.name} {url}")
        return Sample(Timing(1.0))


def test_systems_take_turns_on_the_servers_of_the_round(tmp_path: Path) -> None:
    made: list[Place] = []

    @contextmanager
    def places() -> Iterator[Place]:
        made.append(Place(f"amqp-{len(made)}", "sql", {}))
        yield made[-1]

    turns: list[str] = []
    said: list[Progress] = []
    systems = [Played("a", turns, True), Played("b", turns, False)]
    works = [WORKS["W1"], WORKS["W4"]]
    found = measure(systems, works, 2, places, Setting(tmp_path), said.append)
    assert turns == [
        *("a W1 amqp-0", "b W1 none", "a W4 amqp-0", "b W4 none"),
        *("b W1 none", "a W1 amqp-1", "b W4 none", "a W4 amqp-1"),
    ]
    assert [len(one.samples) for one in found] == [2, 2, 2, 2]
    assert (said[-1].done, said[-1].total) == (8, 8)


def test_cpu_time_is_that_of_a_process_with_its_children() -> None:
    used = cpu_seconds({"all": [1], "nobody": []})
    assert used["all"] > 0
    assert used["nobody"] == 0
