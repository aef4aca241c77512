"""How it scales: from what was found to pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuseline.bench.flows import workflows
from fuseline.bench.works import Metric, Shape, Work
from tests.bench.scale import marks, page, sizing
from tests.bench.scale.axes import chain, middle
from tests.bench.scale.found import Found, Memory, Point, Price, Purge, Statement
from tests.bench.scale.meters import kinds
from tests.bench.scale.plan import QUICK, WHOLE, Section
from tests.bench.scale.rest import crowds
from tests.bench.scale.start import PROGRAMS, WHEEL, WORKER

MEMORY = Memory(50.0, 70.0, 60.0)
CPU = {"coordinator": 0.2, "workers": 0.1, "rabbitmq": 0.4, "postgresql": 0.1}
COUNTS = {"messages": 2.0, "sql_statements": 0.5, "sql_commits": 0.01}


def point(section: Section, size: int, factor: float = 1.0, rate: float = 100.0) -> Point:
    cpu = {name: factor * value for name, value in CPU.items()}
    return Point(section.short, size, cpu, MEMORY, dict(COUNTS), (rate, rate, rate))


def price(work: str) -> Price:
    written = {"PostgreSQL's log (WAL)": 500.0, "tables and indexes": 300.0, "RabbitMQ's disk": 1000.0}
    erlang = {"the reports' queue": 0.25, "segments of queues": 0.25, "the rest": 0.5}
    return Price(
        work, f"{work} of some kind", 100, 10, 1_000.0, dict(CPU), dict(COUNTS), written, erlang, MEMORY
    )


def found() -> Found:
    points = [
        point(section, size, factor)
        for section in Section
        if section not in (Section.WORKS, Section.START)
        for size, factor in ((1, 1.0), (1_000, 1.25))
    ]
    start = {name: {"wall_ms": 100.0, "cpu_ms": 80.0} for name in PROGRAMS}
    start |= {WORKER: {"resident_mb": 55.5}, WHEEL: {"kb": 300.0}}
    statements = [Statement("load_runs", runs, 0.1, 20, []) for runs in (20_000, 1_000_000)]
    about = {"cpus": 2, "system": "x", "python": "3"}
    return Found(about, points, [price("chain")], statements, start, [Purge(20_000, 6, 1_000.0)])


def test_what_was_found_comes_back_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "scaling.json"
    assert Found.load(file).points == []
    found().save(file)
    assert Found.load(file) == found()


def test_a_section_that_is_measured_anew_is_forgotten_first() -> None:
    one = found()
    one.forget([Section.WIDTH, Section.WORKS, Section.RECORDED, Section.START])
    assert {each.section for each in one.points} == {
        section.short
        for section in Section
        if section not in (Section.WIDTH, Section.RECORDED, Section.WORKS, Section.START)
    }
    assert (one.prices, one.statements, one.purges, one.start) == ([], [], [], {})


def test_the_part_of_the_page_has_every_section_with_its_ratio() -> None:
    text = page.shown(found())
    for section in Section:
        if section not in (Section.WORKS, Section.START):
            assert f"### {section[0].upper()}{section[1:]}" in text
    assert "| steps side by side in a run | 1 to 1,000 | 0.800 to 1.000 | 1.25 | 1.25 | 70 to 70 |" in text
    assert "55.5 MB" in text
    assert "| `load_runs` | 0.100 ms, 20 | 0.100 ms, 20 |" in text


def test_a_part_is_put_between_its_marks_and_nothing_else_is_touched(tmp_path: Path) -> None:
    file = tmp_path / "page.md"
    begin, end = marks.marks("scale")
    file.write_text(f"before\n\n{begin}\n\nold\n\n{end}\n\nafter\n")
    for _ in range(2):
        marks.write(file, "scale", "new")
        assert file.read_text() == f"before\n\n{begin}\n\nnew\n\n{end}\n\nafter\n"
    with pytest.raises(SystemExit, match="sizing: begin"):
        marks.write(file, "sizing", "new")


def test_what_an_installation_needs_follows_from_what_a_step_costs() -> None:
    one = price("chain")
    assert sizing.cpus(one, "coordinator", 10_000) == pytest.approx(2.0)
    # Two CPUs of work by processes that are busy for 60 % of the time at most.
    assert [sizing.processes(one, "coordinator", rate) for rate in (10, 1_000, 10_000, 100_000)] == [
        1,
        1,
        4,
        34,
    ]
    assert sizing.ceiling(0.2) == pytest.approx(5_000)
    text = sizing.shown(found())
    assert "| coordinators | 1 | 4 | 34 |" in text
    assert "| growth of the database | 25.9 GB a day | 259 GB a day | 2,592 GB a day |" in text
    # A quarter of RabbitMQ's 0.4 ms.
    assert "| RabbitMQ: the reports' queue | 0.1000 | 10,000 | 6,000 | 25 % of RabbitMQ's CPU time |" in text
    # 6,000 rows are deleted a second, and of each step there is one, of each of ten runs two.
    assert "| `fuseline runs purge`, of 20,000 runs | 0.2000 | 5,000 | 3,000 | 1.2 rows a step |" in text
    with pytest.raises(SystemExit, match="--only works"):
        sizing.shown(Found())


def test_the_middle_of_several_rounds_has_their_range() -> None:
    rounds = [
        point(Section.COORDINATORS, 2, factor, rate)
        for factor, rate in ((1.0, 90.0), (3.0, 70.0), (2.0, 80.0))
    ]
    found = middle(rounds)
    assert found.steps_per_s == (80.0, 70.0, 90.0)
    assert found.cpu_ms["coordinator"] == pytest.approx(0.4)


def test_workers_at_rest_share_a_few_processes() -> None:
    assert (crowds(1, 125), crowds(500, 125), crowds(260, 125)) == ([1], [125] * 4, [125, 125, 10])


def test_the_work_of_erlang_is_told_by_kinds_of_process() -> None:
    before = {"<0.1.0> '%2F_fuseline.reports'": 100, "<0.2.0> ra_log_wal": 0}
    after = {
        "<0.1.0> '%2F_fuseline.reports'": 300,
        "<0.2.0> ra_log_wal": 100,
        "<0.3.0> {rabbit_channel,init,1}": 50,
        "<0.4.0> '%2F_fuseline.steps.a.1'": 40,
        "<0.5.0> something": 10,
    }
    told = kinds(before, after)
    assert told["the reports' queue"] == pytest.approx(0.5)
    assert told["the log of all queues (one process)"] == pytest.approx(0.25)
    assert told["queues of steps"] == pytest.approx(0.1)
    assert sum(told.values()) == pytest.approx(1.0)
    assert kinds({}, {}) == {}


def test_works_may_be_of_several_workflows() -> None:
    flows = workflows(chain(3, 30, 4))
    assert len({flow.to_schema().key for flow in flows}) == 4
    one = Work("w", "", Shape.CHAIN, 3, 10, False, (Metric.SECONDS,))
    assert [flow.to_schema().workflow_id for flow in workflows(one)] == ["bench-chain-3"]


def test_the_whole_plan_reaches_from_one_to_the_largest_of_each() -> None:
    assert (WHOLE.widths[0], WHOLE.widths[-1]) == (10, 100_000)
    assert (WHOLE.recorded[0], WHOLE.recorded[-1]) == (1, 1_000_000)
    assert WHOLE.registered[-1] == WHOLE.used[-1] == WHOLE.resting[-1] == 500
    assert QUICK.steps < WHOLE.steps
