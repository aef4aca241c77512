"""Random graphs in random surroundings: the engine against the oracle, event by event.

P1 every run ends, P2 nothing starts early, P3 duplicates change nothing, joins fire once, P5 a stale holder is refused.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from dataclasses import replace

from fuseline.engine import QueueStep, Rules, Verdict, compile_plan
from fuseline.engine.events import (
    CancelRequested,
    DeadLetterDiscarded,
    Event,
    HolderLost,
    RunDispatched,
    RunDuePassed,
    StepClaimed,
    StepDuePassed,
    StepExpired,
    StepOvertaken,
    StepPoisoned,
    StepReleased,
    StepReplayed,
    StepReported,
    StepVanished,
)
from fuseline.model import Cause, FailureDecision, PolicyDecision, RunStatus, Status, StepError
from fuseline.model.status import DeadLetterState
from tests.unit.engine.graphs import Graph, Kinds, Script, Tape, read_graph, tapes, tell
from tests.unit.engine.oracle import Oracle
from tests.unit.engine.playing import Player

RULES = Rules(lease_seconds=20.0, sweep_seconds=50.0, max_losses=3, timeout_grace_seconds=5.0)
MAX_EVENTS = 2_000
MAX_REPLAYS = 4


def report_of(script: Script, failures: int, attempt: QueueStep, holder: str | None = None) -> StepReported:
    """What the step's worker says about an attempt, after so many failed ones."""
    if failures < script.failures:
        return StepReported(
            attempt.step, attempt.attempt, Status.FAILED, error=StepError(type="Boom"), holder=holder
        )
    return StepReported(
        attempt.step, attempt.attempt, script.status, script.result, script.action, holder=holder
    )


class Chaos:
    """One run in which everything happens that can; the oracle is told only what should count."""

    def __init__(self, graph: Graph, tape: Tape) -> None:
        self.graph = graph
        self.tape = tape
        plan = compile_plan(graph.schema, RULES)
        self.player = Player(plan, 1_000.0)
        self.oracle = Oracle(graph.schema, RULES.max_losses, 1_000.0, RULES.timeout_grace_seconds)
        self.past: list[StepReported] = []
        self.compare()

    def compare(self) -> None:
        store = self.player.store
        assert {name: store.status(name) for name in self.graph.schema.steps} == self.oracle.state
        assert store.run.status is self.oracle.verdict
        assert store.run.is_failing is (self.oracle.is_failing or store.run.status is RunStatus.FAILED)
        for name, row in store.steps.items():
            assert row.attempt == self.oracle.attempt[name]

    def accepted(self, event: Event) -> None:
        assert self.player.apply(event).verdict is Verdict.ACCEPTED
        self.compare()

    def play(self) -> None:
        self.play_to_the_end()
        for _ in range(MAX_REPLAYS):
            if self.replay():
                self.play_to_the_end()
            if self.tape.one_in(5):
                self.discard()

    def play_to_the_end(self) -> None:
        moves = (
            *[self.report] * 10,
            *[self.claim] * 4,
            *[self.pass_time] * 3,
            *[self.repeat] * 2,
            *[self.take_away] * 2,
            self.end_oddly,
            self.say_nonsense,
            self.end_run,
            self.replay,
        )
        for _ in range(MAX_EVENTS):
            if self.player.store.run.status.is_terminal:
                break
            self.tape.pick(moves)()
        else:
            raise AssertionError("the run does not end")
        self.repeat()
        self.say_nonsense()
        self.player.refused(RunDispatched())
        self.player.refused(RunDuePassed())
        self.player.refused(CancelRequested())
        self.compare()

    # ---- an operator

    def letter(self) -> tuple[str, int] | None:
        known = sorted(self.player.store.letters)
        return self.tape.pick(known) if known else None

    def replay(self) -> bool:
        """Replay a dead letter, whatever has become of it; twice is once. True when the run goes on."""
        name = self.tape.pick(list(self.graph.schema.steps))
        assert self.player.refused(StepReplayed(name, 99)) is Verdict.UNKNOWN
        if (key := self.letter()) is None:
            return False
        store, event = self.player.store, StepReplayed(*key)
        before = set(store.letters)
        is_open = store.letters[key].state is DeadLetterState.OPEN
        if not is_open or store.run.status is not RunStatus.FAILED:
            self.player.refused(event)
            return False
        blamed = store.run.failed_step  # None: the run timed out
        is_own = blamed == key[0] and store.run.error == store.letters[key].error
        has_another_cause = blamed is None or (not is_own and self.oracle.fails_without(key[0]))
        stays_failing = self.oracle.is_cleanup(key[0]) and has_another_cause
        probe = copy.deepcopy(self.oracle)
        taken = {(name, store.steps[name].attempt) for name in probe.replayed(key[0], stays_failing)}
        if any(store.letters[one].state is not DeadLetterState.OPEN for one in taken):
            assert self.player.refused(event) is Verdict.STALE
            return False
        self.oracle = probe
        self.accepted(event)
        assert {one for one in before if store.letters[one].state is DeadLetterState.REPLAYED} >= taken
        assert self.player.refused(event) is Verdict.DUPLICATE
        queued = {row.name for row in store.steps.values() if row.status is Status.QUEUED}
        offered = self.player.apply(replace(event, redelivered=True)).effects
        assert {effect.step for effect in offered if isinstance(effect, QueueStep)} == queued
        assert self.player.refused(DeadLetterDiscarded(*key)) is Verdict.STALE
        return True

    def discard(self) -> None:
        if (key := self.letter()) is None:
            return
        event = DeadLetterDiscarded(*key)
        if self.player.store.letters[key].state is DeadLetterState.OPEN:
            self.accepted(event)
            assert self.player.refused(StepReplayed(*key)) is Verdict.STALE
        self.player.refused(event)

    # ---- moves

    def pick(self, *states: Status) -> QueueStep | None:
        rows = sorted(self.player.store.steps.values(), key=lambda row: row.name)
        found = [QueueStep(row.name, row.attempt) for row in rows if row.status in states]
        return self.tape.pick(found) if found else None

    def holder(self, step: str) -> str | None:
        return self.player.store.steps[step].holder

    def report(self) -> None:
        attempt = self.pick(Status.QUEUED, Status.RUNNING)
        if attempt is None:
            self.pass_time()
            return
        step = attempt.step
        holder = self.holder(step)
        event = report_of(self.graph.scripts[step], self.oracle.failures[step], attempt, holder)
        if holder is not None and self.tape.one_in(3):
            assert self.player.refused(replace(event, holder="impostor")) is Verdict.STALE  # P5
        if event.status is Status.SUCCEEDED:
            self.oracle.succeeded(step, event.action, event.result)
        elif event.status is Status.SKIPPED:
            self.oracle.skipped(step, event.action)
        else:
            self.oracle.failed(step)
        self.accepted(event)
        self.after(event)

    def after(self, event: StepReported) -> None:
        """A report that comes again right away, and once more after a crash, changes nothing."""
        self.past.append(event)
        self.player.refused(event)
        self.player.refused(replace(event, redelivered=True))

    def claim(self) -> None:
        attempt = self.pick(Status.QUEUED, Status.RUNNING)
        if attempt is None:
            return
        event = StepClaimed(attempt.step, attempt.attempt, self.holder(attempt.step) or "w1")
        if self.oracle.state[attempt.step] is Status.QUEUED:
            self.oracle.claimed(attempt.step)
        self.accepted(event)
        rows = self.player.store.text()
        self.accepted(event)
        assert rows == self.player.store.text()
        self.player.refused(replace(event, holder="impostor"))

    def pass_time(self) -> None:
        """To the next deadline, or a little less; then all that is due, in an order of the tape's."""
        store, now = self.player.store, self.player.now
        dues = [row.due_at for row in store.steps.values() if row.due_at is not None]
        wait = min(dues) - now
        self.player.now = self.oracle.now = now + (wait / 2 if self.tape.one_in(4) else wait)
        todo = sorted(store.steps)
        while todo and not store.run.status.is_terminal:
            name = todo.pop(self.tape.below(len(todo)))
            row = store.steps[name]
            event = StepDuePassed(name)
            if row.due_at is None or row.due_at > self.player.now:
                self.player.refused(event)
                continue
            if row.status is Status.RUNNING and self.tape.one_in(2):
                event = replace(event, renewed_until=self.player.now + self.tape.pick((10.0, 0.0)))
            self.oracle.due(name, event.renewed_until)
            self.accepted(event)
            if event.renewed_until is None:
                self.player.refused(event)
        if store.run.due_at is not None and store.run.due_at <= self.player.now:
            self.oracle.ended(RunStatus.FAILED)
            self.accepted(RunDuePassed())

    def repeat(self) -> None:
        """A report of long ago, a dispatch: nothing new."""
        self.player.refused(RunDispatched())
        if self.past:
            self.player.refused(replace(self.tape.pick(self.past), redelivered=bool(self.tape.below(2))))
        self.compare()

    def take_away(self) -> None:
        """An attempt loses its holder or its message; who had it is refused afterwards."""
        attempt = self.pick(Status.QUEUED, Status.RUNNING)
        if attempt is None:
            return
        step, number, holder = attempt.step, attempt.attempt, self.holder(attempt.step)
        if self.oracle.state[step] is Status.RUNNING:
            self.player.refused(HolderLost(step, number, "impostor"))
            self.player.refused(StepReleased(step, number, "impostor"))
            event: Event = HolderLost(step, number, holder)
            if self.tape.below(2):
                event = StepReleased(step, number, holder)
                self.oracle.released(step)
            else:
                self.oracle.lost(step)
        else:
            match self.tape.below(4):
                case 3:
                    event = StepOvertaken(step, number)
                    self.oracle.lost(step)
                case 0:
                    event = StepVanished(step, number)
                    self.oracle.vanished(step)
                case 1:
                    event = StepExpired(step, number)
                    self.oracle.failed(step, Cause.EXPIRED)
                case _:
                    event = StepPoisoned(step, number)
                    self.oracle.failed(step, Cause.POISON)
        self.accepted(event)
        if self.oracle.attempt[step] != number:
            late = StepReported(step, number, Status.SUCCEEDED, holder=holder)
            assert self.player.refused(late) is Verdict.STALE

    def end_oddly(self) -> None:
        """A report that carries a policy's decision, an invalid result, or a cancellation."""
        attempt = self.pick(Status.QUEUED, Status.RUNNING)
        if attempt is None:
            return
        step = attempt.step
        event = StepReported(step, attempt.attempt, Status.FAILED, holder=self.holder(step))
        match self.tape.below(6):
            case 0:
                event = replace(event, status=Status.CANCELLED)
                self.oracle.stopped(step)
            case 1:
                event = replace(event, error=StepError(type="Bad", cause=Cause.INVALID))
                self.oracle.failed(step, Cause.INVALID)
            case 2:
                self.oracle.failed(step)
            case kind:
                wish = (FailureDecision.FAIL, FailureDecision.SKIP, FailureDecision.RETRY)[kind - 3]
                decision = PolicyDecision(decision=wish, delay_seconds=self.tape.pick((0.0, 9.0)))
                event = replace(event, decision=decision)
                self.oracle.failed(step, decision=wish, delay_seconds=decision.delay_seconds)
        self.accepted(event)
        self.after(event)

    def say_nonsense(self) -> None:
        """Events about steps that were never queued, attempts that never were, states they do not fit."""
        name = self.tape.pick(list(self.graph.schema.steps))
        row = self.player.store.steps.get(name)
        number = 1 if row is None else row.attempt + self.tape.below(2)
        events: list[Event] = [StepReported(name, number + 1, Status.SUCCEEDED)]
        if row is None or row.status is Status.PENDING or row.status.is_terminal or number != row.attempt:
            events += [
                StepReported(name, number, Status.SUCCEEDED),
                StepClaimed(name, number, "w9"),
                StepExpired(name, number),
                StepPoisoned(name, number),
                StepVanished(name, number),
                StepOvertaken(name, number),
            ]
        if row is None or row.status is not Status.RUNNING or number != row.attempt:
            events += [HolderLost(name, number), StepReleased(name, number)]
        for event in events:
            self.player.refused(event)
        self.compare()

    def end_run(self) -> None:
        if self.tape.one_in(3):
            self.oracle.ended(RunStatus.CANCELLED)
            self.accepted(CancelRequested())


@tapes(300, length=240)
def test_every_step_is_where_the_text_says_after_every_event(tape: Tape) -> None:
    Chaos(tell(read_graph(tape, Kinds())), tape).play()


def test_random_runs_are_not_vacuous() -> None:
    """Each way to end is seen often enough, and so is what a failure can lead to."""
    chance = random.Random(1)
    runs: Counter[RunStatus] = Counter()
    steps: Counter[Status] = Counter()
    causes: Counter[Cause] = Counter()
    tolerated = clean_ups = replayed = mended = along = 0
    for _ in range(240):
        tape = Tape(chance.randbytes(240))
        chaos = Chaos(read_graph(tape, Kinds()), tape)
        chaos.play()
        run, rows = chaos.player.store.run, chaos.player.store.steps.values()
        runs[run.status] += 1
        steps.update(row.status for row in rows)
        causes.update(row.error.cause for row in rows if row.error is not None)
        causes.update(letter.error.cause for letter in chaos.player.store.letters.values())
        tolerated += run.status is RunStatus.SUCCEEDED and any(row.status is Status.FAILED for row in rows)
        replays = run.replays
        replayed += replays > 0
        mended += replays > 0 and run.status is RunStatus.SUCCEEDED
        settled = [one for one in chaos.player.store.letters.values() if one.next_attempt is not None]
        along += len(settled) > replays
        clean_ups += run.status is RunStatus.FAILED and any(
            chaos.oracle.is_cleanup(row.name) and row.status is Status.SUCCEEDED for row in rows
        )
    seen = (runs, steps, causes, tolerated, clean_ups, replayed, mended, along)
    assert min(runs[status] for status in RunStatus if status.is_terminal) >= 3, seen
    assert min(steps[status] for status in Status if status.is_terminal) >= 30, seen
    assert min(causes[cause] for cause in Cause if cause is not Cause.RUN_TIMEOUT) >= 1, seen
    assert tolerated, seen
    assert clean_ups >= 3, seen
    assert min(replayed, mended, along) >= 3, seen


def play_quietly(graph: Graph, tape: Tape, last: bool = False) -> tuple[RunStatus, dict[str, Status]]:
    """Only reports, in the tape's order (the oldest first, or the last, when it is over), and retries as they are due."""
    player = Player(compile_plan(graph.schema, RULES), 1_000.0)
    waiting = list(player.handed_out)
    failures = dict.fromkeys(graph.schema.steps, 0)
    while not player.store.run.status.is_terminal:
        waiting = [one for one in waiting if player.store.status(one.step) in (Status.QUEUED, Status.RUNNING)]
        if not waiting:
            player.now += 10.0
            due = [name for name, row in player.store.steps.items() if row.status is Status.PENDING]
            waiting = [
                e
                for name in due
                for e in player.apply(StepDuePassed(name)).effects
                if isinstance(e, QueueStep)
            ]
        one = waiting[-1] if last else tape.pick(waiting)
        if tape.one_in(3):
            player.apply(StepClaimed(one.step, one.attempt, "w"))
            continue
        waiting.remove(one)
        event = report_of(graph.scripts[one.step], failures[one.step], one)
        failures[one.step] += event.status is Status.FAILED
        waiting += [e for e in player.apply(event).effects if isinstance(e, QueueStep)]
    return player.store.run.status, {name: player.store.status(name) for name in graph.schema.steps}


@tapes(150, length=160)
def test_the_verdict_does_not_depend_on_the_order_of_reports(tape: Tape) -> None:
    graph = tell(read_graph(tape, Kinds()))
    verdict, _ = play_quietly(graph, tape)
    assert verdict in (RunStatus.SUCCEEDED, RunStatus.FAILED)
    assert play_quietly(graph, Tape(b""))[0] is verdict
    assert play_quietly(graph, Tape(b""), last=True)[0] is verdict


@tapes(150, length=160)
def test_without_failures_and_or_groups_no_steps_end_depends_on_the_order(tape: Tape) -> None:
    graph = tell(read_graph(tape, Kinds(or_groups=False, failures=False)))
    verdict, states = play_quietly(graph, tape)
    assert verdict is RunStatus.SUCCEEDED
    assert play_quietly(graph, Tape(b""))[1] == states
    assert play_quietly(graph, Tape(b""), last=True)[1] == states
    oracle = Oracle(graph.schema, 1, 0.0, 0.0)
    while oracle.verdict is RunStatus.RUNNING:
        step = next(name for name, state in oracle.state.items() if state is Status.QUEUED)
        script = graph.scripts[step]
        if script.status is Status.SKIPPED:
            oracle.skipped(step, script.action)
        else:
            oracle.succeeded(step, script.action, script.result)
    assert oracle.state == states
