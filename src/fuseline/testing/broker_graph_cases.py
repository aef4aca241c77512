"""Cases for every broker: what the graph means (DESIGN, section 3), played out to the end of each run (P1)."""

from __future__ import annotations

from typing import Any

from fuseline.broker.base import Broker
from fuseline.model.messages import StepAssignment, StepReport
from fuseline.model.schema import PolicySpec
from fuseline.model.status import RunStatus, Status
from fuseline.model.views import RunView
from fuseline.testing.broker_cases import MakePlayer, _Cases
from fuseline.testing.flows import graph, report_on


def _states(view: RunView) -> dict[str, Status]:
    return {name: step.state for name, step in view.steps.items()}


def _skipped(assignment: StepAssignment) -> StepReport:
    return report_on(assignment, Status.SKIPPED)


class GraphCases(_Cases):
    """Branches, joins, conditions, wide graphs."""

    def test_a_branch_takes_the_action_of_the_report(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"judge": {"accept": ["publish"], "reject": ["tell"]}})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        view = worker.play(run, {"judge": lambda one: report_on(one, action="reject", result=3)})
        assert view.state is RunStatus.SUCCEEDED
        assert worker.taken == ["judge", "tell"]
        assert view.steps["publish"].state is Status.SKIPPED

    def test_a_result_that_names_an_action_takes_it(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"judge": {"accept": ["publish"], "reject": ["tell"]}})
        worker = player(schema)
        view = worker.play(broker.dispatch_workflow(schema), {"judge": lambda _: "accept"})
        assert worker.taken == ["judge", "publish"]
        assert view.steps["tell"].state is Status.SKIPPED

    def test_an_untaken_branch_does_not_hold_up_the_join(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P1: a diamond whose other side is never reached."""
        schema = graph(
            workflow_id,
            {"judge": {"long": ["check"], "short": ["copy"]}, "check": ["end"], "copy": ["end"]},
            outputs=["end"],
        )
        worker = player(schema)
        seen: list[Any] = []
        bodies = {"judge": lambda _: "short", "end": lambda one: seen.append(one.payload["results"])}
        view = worker.play(broker.dispatch_workflow(schema), bodies)
        assert worker.taken == ["judge", "copy", "end"]
        assert seen == [{"copy": "copy"}]
        assert _states(view) == {
            "judge": Status.SUCCEEDED,
            "check": Status.SKIPPED,
            "copy": Status.SUCCEEDED,
            "end": Status.SUCCEEDED,
        }

    def test_a_join_waits_for_all_and_fires_once(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P2, P3."""
        schema = graph(workflow_id, {"a": ["left", "right"], "left": ["end"], "right": ["end"]})
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        worker.do("a")
        both = worker.take_all(2)
        worker.report(both["right"], result="r")
        worker.eventually(
            lambda: worker.state(run, "right") is Status.SUCCEEDED or None, "the report was not recorded"
        )
        assert worker.has_nothing()
        worker.report(both["left"], result="l")
        end = worker.do("end")
        assert end.payload["results"] == {"left": "l", "right": "r"}
        assert self.wait(broker, run).state is RunStatus.SUCCEEDED
        assert worker.has_nothing()

    def test_an_or_join_fires_once_though_both_parents_finish(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        """P3."""
        schema = graph(
            workflow_id,
            {"a": ["left", "right"], "left": ["end"], "right": ["end"]},
            or_groups={"end": {"value": ["left", "right"]}},
        )
        worker = player(schema)
        run = broker.dispatch_workflow(schema)
        worker.do("a")
        both = worker.take_all(2)
        worker.report(both["right"], result="r")
        end = worker.take()
        assert (end.step_name, end.payload["results"]) == ("end", {"right": "r"})
        assert end.payload["winners"] == {"value": "right"}
        worker.report(both["left"], result="l")
        worker.report(end)
        view = self.wait(broker, run)
        assert view.state is RunStatus.SUCCEEDED
        assert set(_states(view).values()) == {Status.SUCCEEDED}
        assert worker.taken.count("end") == 1
        assert worker.has_nothing()

    def test_an_or_join_does_without_a_parent_that_failed(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(
            workflow_id,
            {"a": ["left", "right"], "left": ["end"], "right": ["end"]},
            or_groups={"end": {"value": ["left", "right"]}},
        )
        worker = player(schema)
        view = worker.play(
            broker.dispatch_workflow(schema), {"left": lambda one: report_on(one, error="broken")}
        )
        assert view.state is RunStatus.SUCCEEDED
        assert _states(view)["left"] is Status.FAILED
        assert _states(view)["end"] is Status.SUCCEEDED

    def test_a_step_that_skips_itself_lets_its_successors_go_on(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        schema = graph(workflow_id, {"a": ["maybe"], "maybe": ["end"]}, outputs=["end"])
        worker = player(schema)
        seen: list[Any] = []
        bodies = {"maybe": _skipped, "end": lambda one: seen.append(one.payload["results"])}
        view = worker.play(broker.dispatch_workflow(schema), bodies)
        assert view.state is RunStatus.SUCCEEDED
        assert _states(view) == {"a": Status.SUCCEEDED, "maybe": Status.SKIPPED, "end": Status.SUCCEEDED}
        assert seen == [{}]

    def test_clean_up_runs_when_a_step_failed(
        self, broker: Broker, player: MakePlayer, workflow_id: str
    ) -> None:
        trigger = PolicySpec(name="trigger", config={"rule": "one_failed"})
        schema = graph(workflow_id, {"a": ["b", "undo"]}, policies={"undo": [trigger]})
        worker = player(schema)
        view = worker.play(broker.dispatch_workflow(schema), {"a": lambda one: report_on(one, error="no")})
        assert view.state is RunStatus.FAILED
        assert _states(view) == {"a": Status.FAILED, "b": Status.CANCELLED, "undo": Status.SUCCEEDED}

    def test_a_wide_graph_joins(self, broker: Broker, player: MakePlayer, workflow_id: str) -> None:
        """1 -> 200 -> 1."""
        parts = [f"part-{index:03}" for index in range(200)]
        schema = graph(workflow_id, {"split": parts, **{part: ["join"] for part in parts}}, outputs=["join"])
        worker = player(schema)
        bodies = {"join": lambda one: len(one.payload["results"])}
        view = worker.play(broker.dispatch_workflow(schema), bodies)
        assert view.state is RunStatus.SUCCEEDED
        assert view.outputs == {"join": 200}
        assert len(worker.taken) == len(set(worker.taken)) == 202

    def test_runs_do_not_mix(self, broker: Broker, player: MakePlayer, workflow_id: str) -> None:
        schema = graph(workflow_id, {"a": ["b"]}, outputs=["b"])
        worker = player(schema)
        runs = [broker.dispatch_workflow(schema, {"n": n}) for n in range(5)]
        bodies = {
            "a": lambda one: one.payload["workflow_inputs"]["n"] * 10,
            "b": lambda one: one.payload["results"]["a"] + one.payload["workflow_inputs"]["n"],
        }
        views = [worker.play(run, bodies) for run in runs]
        assert [view.outputs["b"] for view in views] == [0, 11, 22, 33, 44]
