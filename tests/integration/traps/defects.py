"""Defences that can be taken out, each with the test that has to fail then: `python -m tests.integration.traps.prove`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
from sqlalchemy import Engine

from fuseline.amqp import codec, sync
from fuseline.amqp.consuming import Delivery, Line
from fuseline.amqp.link import Link
from fuseline.amqp.publishing import Publisher
from fuseline.amqp.resources import Queue
from fuseline.amqp.topology import Topology
from fuseline.broker import AmqpBroker
from fuseline.coordinator import daemon, decoding
from fuseline.coordinator.daemon import Coordinator
from fuseline.coordinator.mending import Mending
from fuseline.coordinator.outbox import Outbox
from fuseline.coordinator.timers import Timers
from fuseline.engine import machine
from fuseline.engine.events import StepDuePassed, StepReported
from fuseline.engine.state import StepRow
from fuseline.engine.turn import Turn
from fuseline.errors import DeadlineExceededError, FuselineError, UnroutableError
from fuseline.ledger import Occurrence, Outcome
from fuseline.model import Status, StepAssignment
from fuseline.storage.sql import migrating, opening, postgres, sqlite
from fuseline.worker.amqp_source import AmqpSource
from fuseline.worker.attempts import Attempts
from fuseline.worker.leases import Held
from fuseline.worker.reports import Sealed

VARIABLE: Final = "FUSELINE_TRAP_DEFECT"

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Defect:
    """`plant` takes a defence out of the product; `test` (path::name below tests/) has to notice."""

    test: str
    plant: Plant


def nothing(*_args: Any, **_options: Any) -> None:
    """In the place of a method that does something."""


def coordinator_leaves_deleted_queues(patch: pytest.MonkeyPatch) -> None:
    """A coordinator whose queue was deleted waits for somebody else to declare it."""
    patch.setattr(Coordinator, "_lost", nothing)


def silence_is_believed(patch: pytest.MonkeyPatch) -> None:
    """A coordinator that is told of no trouble takes it that it would hear whoever speaks."""
    patch.setattr(Timers, "_unheard_pause", nothing)


def coordinators_queues_have_no_limit_of_their_own(patch: pytest.MonkeyPatch) -> None:
    """What coordinators take comes back as often as RabbitMQ's version lets it, and is dropped then, or never parked."""
    patch.setattr(Topology, "_coordinators_arguments", lambda self: {"x-queue-type": self.queue_type})


def pulling_broker_leaves_deleted_queues(patch: pytest.MonkeyPatch) -> None:
    """A broker that pulls takes a deleted queue for the end."""

    def get(self: AmqpBroker, _worker_id: str, key: tuple[str, str]) -> Delivery | None:
        return self._link.get(self.topology.steps_queue(*key), deadline_seconds=self._call_seconds)

    patch.setattr(AmqpBroker, "_get", get)


def redelivered_steps_are_not_claimed(patch: pytest.MonkeyPatch) -> None:
    """Who takes over from somebody that vanished begins without a word."""
    patch.setattr(Attempts, "pump", _pump_without_claims(Attempts.pump))


def _pump_without_claims(pump: Callable[[Attempts], None]) -> Callable[[Attempts], None]:
    def pump_plainly(self: Attempts) -> None:
        for held in self._waiting:
            held.must_claim = False
        pump(self)

    return pump_plainly


def died_processes_are_ordinary_failures(patch: pytest.MonkeyPatch) -> None:
    """A process that a step took down counts as an exception in it."""
    patch.setattr(machine, "PROCESS_DIED", "nothing is called this")


def losses_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    """A lease that ended leads to the next attempt, always."""
    lost = machine._RULES[Status.RUNNING, StepDuePassed]

    def forgive(turn: Turn, row: StepRow, event: StepDuePassed) -> None:
        turn.change_step(row).losses = 0
        lost(turn, turn.change_step(row), event)

    patch.setitem(machine._RULES, (Status.RUNNING, StepDuePassed), forgive)


def stopping_workers_do_not_finish(patch: pytest.MonkeyPatch) -> None:
    """A worker that is told to end leaves its steps where they are."""

    async def at_once(*_args: Any) -> None:
        pass

    patch.setattr(AmqpSource, "_until_empty", at_once)


def blocked_calls_do_not_say_why(patch: pytest.MonkeyPatch) -> None:
    """Who is blocked is told that it took too long."""
    patch.setattr(Publisher, "_blocked_error", staticmethod(lambda: DeadlineExceededError("too late")))


def busy_reports_are_dropped(patch: pytest.MonkeyPatch) -> None:
    """A report that RabbitMQ did not take in time is not sent again."""
    patch.setattr("fuseline.worker.outgoing.RetryableError", UnroutableError)


def silent_queues_are_only_declared(patch: pytest.MonkeyPatch) -> None:
    """A queue that confirms nothing is taken for one that is missing."""
    patch.setattr(Mending, "mend", lambda self, key, then: self._declared.again(key, then))


def all_share_a_publishing_channel(patch: pytest.MonkeyPatch) -> None:
    """Assignments go out where answers go out."""
    patch.setattr(Link, "publish", _publish_together(Link.publish))


def _publish_together(publish: Callable[..., None]) -> Callable[..., None]:
    return lambda self, *args, **options: publish(self, *args, **{**options, "apart": False})


def long_steps_are_held(patch: pytest.MonkeyPatch) -> None:
    """A worker holds its delivery for as long as the step takes."""
    patch.setattr(Attempts, "_claim", nothing)


def expiry_is_left_to_the_queue(patch: pytest.MonkeyPatch) -> None:
    """RabbitMQ alone ends what waits for too long."""
    patch.setitem(machine._RULES, (Status.QUEUED, StepDuePassed), nothing)


def unroutable_assignments_are_left(patch: pytest.MonkeyPatch) -> None:
    """RabbitMQ's confirm of a message that reached no queue is taken for good."""
    patch.setattr(Publisher, "_returned", nothing)


def stale_deliveries_are_acked(patch: pytest.MonkeyPatch) -> None:
    """A delivery of an earlier channel is acknowledged on the present one."""

    def ack(self: Line, delivery: Delivery, multiple: bool) -> None:
        if self._channel is not None and self._channel.is_open:
            self._channel.basic_ack(delivery.tag, multiple)

    patch.setattr(Line, "ack", ack)


def stale_deliveries_are_nacked(patch: pytest.MonkeyPatch) -> None:
    """A delivery of an earlier channel is handed back or rejected on the present one."""

    def nack(self: Line, delivery: Delivery, requeue: bool) -> None:
        if self._channel is not None and self._channel.is_open:
            self._channel.basic_nack(delivery.tag, False, requeue)

    patch.setattr(Line, "nack", nack)


def dispatches_begin_again(patch: pytest.MonkeyPatch) -> None:
    """A dispatch begins its run, whether there is one of that name or not."""

    def begin(turn: Turn) -> None:
        for name in turn.plan.starts:
            turn.queue(name)

    patch.setattr(machine, "_dispatched", begin)


def reports_count_again(patch: pytest.MonkeyPatch) -> None:
    """A report of an attempt that has ended ends it again."""
    late = machine._late

    def count(turn: Turn, row: StepRow, event: Any, attempt: int) -> None:
        if isinstance(event, StepReported):
            machine._reported(turn, row, event)
        else:
            late(turn, row, event, attempt)

    patch.setattr(machine, "_late", count)


def calls_have_no_deadline(patch: pytest.MonkeyPatch) -> None:
    """A message waits for its confirm for as long as it takes, and its caller for the message."""
    patch.setattr(Publisher, "_arm", nothing)
    patch.setattr(sync, "_GRACE_SECONDS", 600.0)


def retries_are_the_dead_letter_again(patch: pytest.MonkeyPatch) -> None:
    """An attempt that expired is tried again as its dead letter, headers and all, by way of a queue that delays it."""
    headers: dict[tuple[str, str], dict[str, Any]] = {}
    publish = Link.publish

    def read_dead_letter(delivery: Delivery) -> Occurrence:
        what = decoding.read_dead_letter(delivery)
        headers[what.instance_id, getattr(what.event, "step", "")] = dict(delivery.properties.headers or {})
        return what

    def assign(
        self: Outbox, outcome: Outcome, assignment: StepAssignment, on_done: Callable[[], None]
    ) -> None:
        died = headers.get((outcome.instance_id, assignment.step_name))
        if died is None:
            first(self, outcome, assignment, on_done)
            return
        key = assignment.workflow_id, assignment.workflow_version
        queue = Queue(
            f"{self._topology.steps_queue(*key)}.delayed",
            {
                "x-dead-letter-exchange": self._topology.steps_exchange,
                "x-dead-letter-routing-key": self._topology.steps_key(*key),
                "x-expires": 600_000,
            },
        )
        properties = codec.properties(
            codec.ASSIGNMENT,
            message_id=f"{assignment.instance_id}/{assignment.step_name}/{assignment.attempt}",
            timestamp=assignment.assigned_at,
            expiration_seconds=0.1,
            headers=died,
        )

        def declared(_error: FuselineError | None) -> None:
            publish(
                self._link,
                "",
                queue.name,
                codec.encode(assignment),
                properties,
                on_done=lambda _error: on_done(),
                deadline_seconds=20.0,
            )

        self._link.declare([queue], declared, deadline_seconds=20.0)

    first = Outbox.assign
    patch.setattr(daemon, "read_dead_letter", read_dead_letter)
    patch.setattr(Outbox, "assign", assign)


def failed_steps_are_handed_back(patch: pytest.MonkeyPatch) -> None:
    """A step that failed goes back to its queue, to be delivered again."""
    end = Attempts._end
    redelivered_steps_are_not_claimed(patch)

    def hand_back(self: Attempts, held: Held, sealed: Sealed) -> None:
        if sealed.report.state is not Status.FAILED:
            end(self, held, sealed)
            return
        self._slots.end()
        self._nack(held)
        self._leave(held, finished=False)

    patch.setattr(Attempts, "_end", hand_back)


def redelivered_reports_offer_nothing(patch: pytest.MonkeyPatch) -> None:
    """A report that comes again is a duplicate and no more."""
    patch.setattr(machine, "_offer_again_after", nothing)


def older_tables_are_taken_for_ours(patch: pytest.MonkeyPatch) -> None:
    """Whoever opens a database does not look which migration it has."""
    for module in (opening, postgres):
        patch.setattr(module, "check_revision", nothing)


def older_tables_stay_as_they_are(patch: pytest.MonkeyPatch) -> None:
    """Only an empty database gets tables."""
    bring = migrating.bring_up_to_date

    def bring_empty(engine: Engine, *args: Any) -> None:
        with engine.connect() as connection:
            found = migrating.find_revision(connection)
        if found is None:
            bring(engine, *args)

    for module in (opening, sqlite):
        patch.setattr(module, "bring_up_to_date", bring_empty)


DEFECTS: Final = {
    "coordinators-queues-have-no-limit-of-their-own": Defect(
        "integration/traps/test_delivered_often.py::"
        "test_a_report_that_comes_back_often_is_recorded_and_parked_only_when_nobody_gets_through",
        coordinators_queues_have_no_limit_of_their_own,
    ),
    "older-tables-are-taken-for-ours": Defect(
        "integration/traps/test_older_tables.py::test_tables_one_migration_behind_are_told_and_not_touched",
        older_tables_are_taken_for_ours,
    ),
    "older-tables-stay-as-they-are": Defect(
        "integration/traps/test_older_tables.py::test_a_run_from_before_a_migration_goes_on_after_it",
        older_tables_stay_as_they_are,
    ),
    "reports-before-a-kill-count-again": Defect(
        "integration/traps/test_join_killed.py::"
        "test_a_join_of_a_thousand_whose_coordinator_is_killed_at_the_last_parent_fires_once",
        reports_count_again,
    ),
    "redelivered-reports-offer-nothing": Defect(
        "integration/traps/test_join_killed.py::"
        "test_a_join_of_a_thousand_whose_coordinator_is_killed_at_the_last_parent_fires_once",
        redelivered_reports_offer_nothing,
    ),
    "retries-are-the-dead-letter-again": Defect(
        "integration/traps/test_retries.py::"
        "test_an_assignment_that_expires_again_and_again_is_never_dropped_as_a_cycle",
        retries_are_the_dead_letter_again,
    ),
    "failed-steps-are-handed-back": Defect(
        "integration/traps/test_retries.py::test_thirty_retries_are_thirty_attempts",
        failed_steps_are_handed_back,
    ),
    "dispatches-begin-again": Defect(
        "integration/traps/test_lost_confirms.py::test_a_call_without_its_confirm_fails_in_time_and_has_one_effect",
        dispatches_begin_again,
    ),
    "reports-count-again": Defect(
        "integration/traps/test_lost_confirms.py::test_a_call_without_its_confirm_fails_in_time_and_has_one_effect",
        reports_count_again,
    ),
    "calls-have-no-deadline": Defect(
        "integration/traps/test_lost_confirms.py::test_a_call_without_its_confirm_fails_in_time_and_has_one_effect",
        calls_have_no_deadline,
    ),
    "calls-wait-for-a-server-that-is-down": Defect(
        "integration/traps/test_lost_confirms.py::test_calls_with_rabbitmq_down_fail_in_time_and_are_not_made_later",
        calls_have_no_deadline,
    ),
    "dispatches-wait-for-a-majority": Defect(
        "integration/test_cluster.py::test_without_a_majority_a_dispatch_fails_in_time_and_lands_at_most_once",
        calls_have_no_deadline,
    ),
    "reports-wait-for-a-majority": Defect(
        "integration/test_cluster.py::test_without_a_majority_a_report_fails_in_time_and_counts_once",
        calls_have_no_deadline,
    ),
    "dispatches-without-a-majority-begin-again": Defect(
        "integration/test_cluster.py::test_without_a_majority_a_dispatch_fails_in_time_and_lands_at_most_once",
        dispatches_begin_again,
    ),
    "stale-deliveries-are-acked": Defect(
        "integration/traps/test_stale_tags.py::"
        "test_what_was_held_before_a_reconnect_does_not_let_another_step_go_after_it",
        stale_deliveries_are_acked,
    ),
    "links-ack-stale-deliveries": Defect(
        "integration/amqp/test_faults.py::"
        "test_a_held_delivery_comes_again_after_a_cut_and_its_old_tag_does_nothing",
        stale_deliveries_are_acked,
    ),
    "links-nack-stale-deliveries": Defect(
        "integration/amqp/test_consuming.py::"
        "test_a_channel_closed_under_us_is_renewed_and_its_tags_are_never_acked_on_the_new_one",
        stale_deliveries_are_nacked,
    ),
    "stopping-workers-do-not-finish": Defect(
        "integration/traps/test_warm_shutdown.py::test_a_warm_shutdown_under_load_loses_and_repeats_nothing",
        stopping_workers_do_not_finish,
    ),
    "blocked-calls-do-not-say-why": Defect(
        "integration/traps/test_blocked.py::test_calls_of_a_blocked_broker_say_so_in_time_and_can_be_repeated",
        blocked_calls_do_not_say_why,
    ),
    "busy-reports-are-dropped": Defect(
        "integration/traps/test_blocked.py::test_a_worker_and_a_coordinator_wait_for_the_end_of_the_alarm_and_go_on",
        busy_reports_are_dropped,
    ),
    "coordinator-leaves-deleted-queues": Defect(
        "integration/traps/test_cancelled_consumers.py::test_a_coordinator_whose_queue_is_deleted_consumes_again",
        coordinator_leaves_deleted_queues,
    ),
    "pulling-broker-leaves-deleted-queues": Defect(
        "integration/traps/test_cancelled_consumers.py::test_a_broker_that_pulls_steps_goes_on_when_its_queue_was_deleted",
        pulling_broker_leaves_deleted_queues,
    ),
    "redelivered-steps-are-not-claimed": Defect(
        "integration/traps/test_poison.py::test_a_step_that_kills_its_worker_before_it_is_claimed_is_quarantined",
        redelivered_steps_are_not_claimed,
    ),
    "silent-queues-are-only-declared": Defect(
        "integration/traps/test_fresh_queues.py::test_a_queue_that_answers_nobody_is_made_anew_and_holds_up_no_other",
        silent_queues_are_only_declared,
    ),
    "all-share-a-publishing-channel": Defect(
        "integration/traps/test_fresh_queues.py::test_a_queue_that_answers_nobody_is_made_anew_and_holds_up_no_other",
        all_share_a_publishing_channel,
    ),
    "long-steps-are-held": Defect(
        "integration/traps/test_consumer_timeout.py::test_a_step_longer_than_the_consumer_timeout_is_executed_once",
        long_steps_are_held,
    ),
    "expiry-is-left-to-the-queue": Defect(
        "integration/traps/test_retries.py::test_a_short_expiry_behind_a_long_one_ends_on_time",
        expiry_is_left_to_the_queue,
    ),
    "unroutable-assignments-are-left": Defect(
        "integration/traps/test_unroutable.py::test_an_assignment_whose_queue_was_deleted_is_published_again",
        unroutable_assignments_are_left,
    ),
    "losses-are-not-counted": Defect(
        "integration/traps/test_poison.py::test_a_step_whose_worker_is_killed_for_its_memory_is_quarantined",
        losses_are_not_counted,
    ),
    "silence-is-believed": Defect(
        "integration/traps/test_blocked.py::test_a_coordinator_that_is_told_nothing_of_the_alarm_ends_no_lease",
        silence_is_believed,
    ),
    "died-processes-are-ordinary-failures": Defect(
        "integration/traps/test_poison.py::test_a_step_that_kills_its_own_process_is_quarantined_and_the_worker_lives",
        died_processes_are_ordinary_failures,
    ),
}


def plant_named(patch: pytest.MonkeyPatch) -> None:
    """Take out the defence that the environment names, if it names one."""
    if name := os.environ.get(VARIABLE):
        DEFECTS[name].plant(patch)
