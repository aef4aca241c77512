"""Judges a history: was every promise (P1-P6) kept? It knows graphs and what happened, and asks no code of the system.

It goes through the events once, keeping the rows that storage held at each moment.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable

from fuseline.amqp import codec
from fuseline.engine.state import JoinRow, RunRow, StepRow
from fuseline.model.schema import WorkflowSchema
from fuseline.model.status import RunStatus, Status
from fuseline.storage.base import Changes
from fuseline.testing.simulation.dispatches import Dispatches, unsent
from fuseline.testing.simulation.endings import endings, quiet, retry_budgets
from fuseline.testing.simulation.history import Event, History
from fuseline.testing.simulation.replays import is_replay, standing
from fuseline.testing.simulation.reports import has_ended, that_end
from fuseline.testing.simulation.semantics import READY, SKIPPED, Graph
from fuseline.testing.simulation.starts import Fused, goes_on_from, wrong_with
from fuseline.testing.simulation.workload import SCRIPTED

Key = tuple[str, str]
Attempt = tuple[str, str, int]
MAX_VIOLATIONS = 20
TOLD_SECONDS = 20.0
"""Two looks of a coordinator at the leases, or a beat and one look."""


class Checker:
    """One history's judge; `violations` say which promise was broken, when, and by what."""

    def __init__(self, history: History, definitions: dict[tuple[str, str], list[WorkflowSchema]]) -> None:
        self._history = history
        self._graphs = {key: Graph(found[0]) for key, found in definitions.items()}
        self._budgets = {key: retry_budgets(found) for key, found in definitions.items()}
        self.violations: list[str] = []
        self.runs: dict[str, RunRow] = {}
        self.rows: defaultdict[str, dict[str, StepRow]] = defaultdict(dict)
        self._joins: dict[Key, JoinRow] = {}
        self._commit = 0
        self._queued_once: set[Attempt] = set()
        self._first_queued: dict[Key, int] = {}  # in which commit
        self._closed: dict[Attempt, int] = {}
        self._ended: set[tuple[str, Attempt, Status]] = set()
        self._decided: set[Key] = set()  # steps whose own policy decided about a failure
        self._sent: set[str] = set()
        self._taken: set[str] = set()  # by the server
        self._not_taken: set[str] = set()  # at least once: it may have been left to the sweep
        self._said: defaultdict[str, set[str]] = defaultdict(set)  # claims and reports: who published them
        self._copies: defaultdict[tuple[str, str], int] = defaultdict(int)  # of a message in a queue, or held
        self._dispatches = Dispatches()
        self._fused = Fused()
        self._alive: set[str] = set()
        self._executions: Counter[Attempt] = Counter()
        self._healed_at = float("inf")
        self._run_ended: dict[str, float] = {}
        self._replayed: set[tuple[str, int]] = set()  # (run, commit)
        self._replayed_last: dict[str, int] = {}  # in which commit
        self._queued_last: dict[str, int] = {}  # after which commit each message was
        self._ran_late: set[str] = set()  # runs of which an attempt was executed that was over
        self._purged: set[str] = set()  # messages that an operator threw away
        self._begun: dict[tuple[str, Attempt], float] = {}  # (worker, attempt): when it was executed last
        self._now = 0.0
        self._judges: dict[str, Callable[[Event], None]] = {
            "started": lambda event: self._alive.add(event[2]),
            "killed": lambda event: self._alive.discard(event[2]),
            "exited": lambda event: self._alive.discard(event[2]),
            "commit": self._committed,
            "noticed": self._noticed,
            "start": self._started,
            "end": self._body_ended,
            "stopped": self._body_stopped,
            "healed": self._healed,
            "sent": self._was_sent,
            "refuses": lambda event: self._not_taken.add(event[3]),
            "unroutable": lambda event: self._not_taken.add(event[3]),
            "queued": self._was_queued,
            "settled": self._settled,
            "lost": self._lost,
            "dead": self._died,
            "acked": self._acked,
            "gives-up": self._gave_up,
            "protocol": lambda event: self._broken("P7", f"{event[2]} broke AMQP's rules: {event[3]}"),
        }

    def check(self, left_over: list[str]) -> list[str]:
        """All violations. `left_over`: what was not over within the bound, if anything."""
        for event in self._history.events:
            judge = self._judges.get(event[1])
            if judge is not None:
                self._now = event[0]
                judge(event)
        if not any(name.startswith("fault: ") for name in self._history.counts):
            for what in quiet(self.rows, self._executions, self._replayed_last.keys() | self._ran_late):
                self._broken("P5", f"{what}, and nothing had gone wrong")
        for crash in self._history.crashes:
            self._broken("P7", crash)
        for one in left_over:
            self._broken("P1", f"not over in time: {one}")
        for run in self.runs.values():
            if run.status.is_terminal:
                rows = standing(self.rows[run.instance_id])
                for promise, what in endings(run, rows, self._graph(run.instance_id)):
                    self._broken(promise, what)
        return self.violations

    def _broken(self, promise: str, what: str) -> None:
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(f"{promise} at {self._now - 1_700_000_000:.4f}: {what}")

    def _graph(self, instance_id: str) -> Graph:
        run = self.runs[instance_id]
        return self._graphs[run.workflow_id, run.version]

    # ---- commits

    def _committed(self, event: Event) -> None:
        self._commit += 1
        for changes in event[3:]:
            before_runs = {run.instance_id: self.runs.get(run.instance_id) for run in changes.runs}
            before = {(i, row.name): self.rows[i].get(row.name) for i, row in changes.steps}
            for run in changes.runs:
                self._check_run(before_runs[run.instance_id], run)
                self.runs[run.instance_id] = run
            for i, row in changes.steps:
                self.rows[i][row.name] = row
            for i, row in changes.steps:
                self._check_row(i, before[i, row.name], row)
            for i, join in changes.joins:
                known = self._joins.get((i, join.name))
                if known is not None and known.fired and (i, self._commit) not in self._replayed:
                    self._broken("P3", f"the join of {i}/{join.name} changes after it has fired")
                self._joins[i, join.name] = join
            self._check_reach(changes, before, before_runs)

    def _check_run(self, old: RunRow | None, new: RunRow) -> None:
        if old is None and any(
            one.version != new.version and one.workflow_id == new.workflow_id and not one.status.is_terminal
            for one in self.runs.values()
        ):
            self._history.bit("two versions at once")
        if is_replay(old, new, self._dispatches.to_cancel):
            self._history.bit("replay of a dead letter")
            self._replayed.add((new.instance_id, self._commit))
            self._replayed_last[new.instance_id] = self._commit
            self._run_ended.pop(new.instance_id, None)
        elif old is not None and old.status.is_terminal:
            self._broken("P3", f"run {new.instance_id} changes after it has ended {old.status}")
        if new.status.is_terminal:
            self._run_ended[new.instance_id] = self._now
        if new.status.is_terminal and (new.due_at is not None or new.open_steps):
            self._broken("P6", f"run {new.instance_id} has ended and still owns a timer or open steps")

    def _check_row(self, i: str, old: StepRow | None, new: StepRow) -> None:
        key = (i, new.name, new.attempt)
        run = self.runs[i]
        if old is not None:
            if old.status.is_terminal and not old.is_reset and (i, self._commit) not in self._replayed:
                self._broken("P3", f"{i}/{new.name} changes after it has ended {old.status}")
            if not old.attempt <= new.attempt <= old.attempt + 1:
                self._broken("P3", f"{i}/{new.name}: attempt {new.attempt} follows attempt {old.attempt}")
            if (
                old.status is Status.PENDING
                and new.status is Status.QUEUED
                and (old.due_at or 0.0) > self._now
            ):
                self._broken("P3", f"attempt {key} is queued before its time")
            if old.status is new.status is Status.RUNNING and (
                old.attempt == new.attempt and old.holder != new.holder
            ):
                self._broken(
                    "P5", f"attempt {key} goes from {old.holder} to {new.holder}, and was never given up"
                )
            if new.attempt > old.attempt:
                self._closed[i, new.name, old.attempt] = self._commit
                if old.losses < new.losses and old.status is Status.RUNNING:
                    self._history.bit("holder lost, next attempt")
                    if old.holder in self._alive:
                        self._history.bit("lease ended under a live worker")
        elif new.attempt > 1 and not self._was_fused(i, new.name):
            self._broken("P3", f"{i}/{new.name} begins with attempt {new.attempt}")
        if old is None or (old.is_reset and not new.is_reset):
            self._check_fate(run, new)
            self._first_queued[i, new.name] = self._commit
        if (new.due_at is None) != new.status.is_terminal:
            self._broken("P6", f"{i}/{new.name} is {new.status} with due_at {new.due_at}")
        if new.status is Status.QUEUED and (
            old is None or old.status is not Status.QUEUED or old.attempt != new.attempt
        ):
            if key in self._queued_once:
                self._broken("P3", f"attempt {key} is queued a second time")
            self._queued_once.add(key)
        if new.status.is_terminal:
            self._closed[key] = self._commit
            self._check_outcome(i, old, new)

    def _check_fate(self, run: RunRow, row: StepRow) -> None:
        """A step's first row: it was ready, or all that leads to it is dead (P2)."""
        wanted = SKIPPED if row.is_unreached else READY
        fate = self._graph(run.instance_id).fate(run, standing(self.rows[run.instance_id]), row.name)
        if fate != wanted:
            self._broken("P2", f"{run.instance_id}/{row.name} is {row.status}, by its graph it is {fate}")

    def _check_outcome(self, i: str, old: StepRow | None, new: StepRow) -> None:
        key = (i, new.name, new.attempt)
        if new.status is Status.SUCCEEDED:
            if new.result != [new.name, new.attempt]:
                self._broken("P5", f"attempt {key} is recorded with the result of another: {new.result}")
            if (wrong := self._fused.wrong_with(i, new, self.rows[i])) is not None:
                self._broken("P2", wrong)
            if (new.holder, key, Status.SUCCEEDED) not in self._ended:
                self._broken("P3", f"attempt {key} is recorded as succeeded; {new.holder} never said so")
            if old is not None and old.status is Status.RUNNING and old.holder != new.holder:
                self._broken(
                    "P5", f"attempt {key} was held by {old.holder}, and {new.holder}'s report counts"
                )
        elif (i, new.name) in self._decided:
            return
        elif new.status is Status.FAILED and new.error is not None and new.error.type == SCRIPTED:
            run = self.runs[i]
            least, most = self._budgets[run.workflow_id, run.version][new.name]
            if new.failures > most and most:
                self._broken("P3", f"{i}/{new.name} failed {new.failures} times, and may {most} times")
            if new.failures < least and run.error is None:
                self._broken("P1", f"{i}/{new.name} is given up after {new.failures} of {least} attempts")

    def _check_reach(
        self, changes: Changes, before: dict[Key, StepRow | None], runs: dict[str, RunRow | None]
    ) -> None:
        """Rows that change are those of the event, or lie behind an edge of one that ended here (P6)."""
        by_run: defaultdict[str, set[str]] = defaultdict(set)
        for i, row in changes.steps:
            by_run[i].add(row.name)
        for i, names in by_run.items():
            run = self.runs[i]
            was_replayed = (i, self._commit) in self._replayed
            if run.error is not None or run.status.is_terminal or runs.get(i, run) is None or was_replayed:
                continue
            reach = {
                target
                for name in names
                if self.rows[i][name].status.is_terminal
                for target in self._graph(i).after[name]
            }
            far = [name for name in names if before[i, name] is None and name not in reach]
            far += [join.name for at, join in changes.joins if at == i and join.name not in reach]
            if far:
                self._broken("P6", f"run {i}: {far} are touched, and no step before them ended")

    # ---- executions and messages

    def _started(self, event: Event) -> None:
        _, _, worker, key, payload, running, concurrency = event
        self._executions[key] += 1
        self._begun[worker, key] = self._now
        i, name, attempt = key
        if running > concurrency:
            self._broken("P6", f"{worker} executes {running} steps at once, and may {concurrency}")
        if i not in self.runs:
            self._broken("P2", f"{worker} executes {key}, and there is no such run")
            return
        results = payload["results"]
        wrong = list(wrong_with(self._graph(i), self.runs[i], self.rows[i], name, attempt, results))
        before = goes_on_from(self._graph(i), worker, key, results, self._said)
        row = self.rows[i].get(name)
        if row is not None and (row.attempt > attempt or row.status.is_terminal):
            self._ran_late.add(i)
        is_held = row is not None and row.status is Status.RUNNING and row.holder == worker
        if before is not None and (wrong or is_held):
            self._history.bit("step fusion")
            self._fused.begins(worker, key, *before)
            return
        self._fused.ends(worker, key)
        for what in wrong:
            self._broken("P2", f"{worker} {what}")

    def _body_ended(self, event: Event) -> None:
        self._body_stopped(event)
        self._ended.add((event[2], event[3], event[4]))
        if event[5]:
            self._decided.add(event[3][:2])

    def _healed(self, _event: Event) -> None:
        self._healed_at = self._now

    def _noticed(self, _event: Event) -> None:
        """A process has learnt that its connection was cut: before, nobody could tell it anything."""
        if self._healed_at <= self._now:
            self._healed_at = self._now

    def _body_stopped(self, event: Event) -> None:
        """Whoever executes a step of a run that has ended is told, soon (P5)."""
        i = event[3][0]
        begun = self._begun.get((event[2], event[3]), self._now)
        late = self._now - max(self._healed_at, self._run_ended.get(i, self._now), begun)
        if late > TOLD_SECONDS:
            self._broken("P5", f"{event[2]} executed {event[3]} for {late:.1f} s after its run had ended")

    def _gave_up(self, event: Event) -> None:
        # A worker whose abandoned bodies have taken all its places has to end; its service manager starts it again.
        if "no place is left" not in event[3]:
            self._broken("P7", f"{event[2]} gave up: {event[3]}")

    def _was_sent(self, event: Event) -> None:
        self._sent.add(event[3])

    def _was_queued(self, event: Event) -> None:
        _, _, who, queue, kind, message_id = event
        self._copies[queue, message_id] += 1
        self._queued_last[message_id] = self._commit
        self._taken.add(message_id)
        if kind in (codec.REPORT, codec.CLAIM):
            self._said[message_id].add(who)
        self._dispatches.queued(message_id)
        if queue.endswith(".parked"):
            self._broken("P7", f"{who} parked {kind} {message_id}")

    def _is_over(self, i: str, name: str, attempt: int) -> bool:
        run = self.runs.get(i)
        row = self.rows[i].get(name) if run is not None else None
        if run is None or row is None:
            return False
        return run.status.is_terminal or row.status.is_terminal or row.attempt > attempt

    def _settled(self, event: Event) -> None:
        """What its receiver let go must be safe elsewhere (P4)."""
        _, _, who, queue, kind, message_id = event
        if kind in (codec.COMMAND, codec.HEARTBEAT, codec.ECHO):
            self._look_at_starts(self._dispatches.settled(message_id))
            return
        self._copies[queue, message_id] -= 1
        i, name, number, *_ = message_id.split("/")
        attempt = int(number)
        if kind == codec.ASSIGNMENT and queue.endswith(".dead"):
            row = self.rows[i].get(name)
            if not self._is_over(i, name, attempt) and (row is None or row.status is not Status.RUNNING):
                self._broken("P4", f"{who} let the dead letter {message_id} go and did nothing about it")
        elif kind == codec.ASSIGNMENT:
            told = self._said[f"{message_id}/claim"] or self._said[f"{message_id}/report"]
            if not told and not self._is_over(i, name, attempt) and not self._copies[queue, message_id]:
                self._broken("P4", f"{who} let {message_id} go before anybody heard of it")
        elif kind == codec.REPORT:
            self._report_settled(who, queue, message_id, i, name, attempt)
        elif kind == codec.CLAIM and message_id.endswith("/claim"):
            row = self.rows[i].get(name)
            is_running = row is not None and row.status is Status.RUNNING and row.attempt == attempt
            if not is_running and not self._is_over(i, name, attempt):
                self._broken("P4", f"{who} let the claim {message_id} go, and it is not recorded")

    def _look_at_starts(self, i: str | None) -> None:
        if i is not None and self._dispatches.must_be_out(i):
            for name in unsent(i, self._graph(i).starts, self.rows[i], self._sent):
                self._broken("P4", f"the dispatch of {i} was acknowledged; {name} was never sent out")

    def _report_settled(self, who: str, queue: str, message_id: str, i: str, name: str, attempt: int) -> None:
        if not self._is_over(i, name, attempt):
            if self._queued_last[message_id] < self._replayed_last.get(i, 0):
                return  # decided on while the run was over, and acknowledged when it went on
            row = self.rows[i].get(name)
            if message_id.endswith("/fused"):
                self._fused_settled(who, queue, message_id, row)
                return
            others = self._said[message_id] - {row.holder if row is not None else None}
            if row is None or row.status is not Status.RUNNING or not others:
                self._broken("P4", f"{who} let the report {message_id} go, and it is not recorded")
            return
        if self.runs[i].status.is_terminal or self._copies[queue, message_id]:
            return  # a second copy of the report, held by whoever recorded the first, answers for what follows
        if message_id in self._purged:
            return  # the first one answered for it, until it was thrown away: the sweep sees to it
        if not has_ended(self.rows[i][name], (i, name, attempt), self._ended):
            return  # a timer ended the attempt, not this report: what follows from that is for the sweep to see to
        commit = self._closed.get((i, name, attempt))
        for target in self._graph(i).after[name]:
            row = self.rows[i].get(target)
            if (
                row is not None
                and row.status is Status.QUEUED
                and row.attempt == 1
                and self._first_queued[i, target] == commit
                and not self._is_out(f"{i}/{target}/1")
                and not self._is_answered_for(i, target, commit, queue)
            ):
                self._broken("P4", f"{who} let {message_id} go before {target}, ready by it, was safe")

    def _is_answered_for(self, i: str, target: str, commit: int | None, queue: str) -> bool:
        """Whether what was decided on after the report, in the same batch, is still held: it made `target` ready."""
        rows = [self.rows[i].get(name) for name in self._graph(i).steps[target].predecessors]
        keys = [(i, row.name, row.attempt) for row in rows if row is not None]
        ended = [key for key in keys if self._closed.get(key) == commit]
        return any(self._copies[copy] for key in ended for copy in that_end(key, queue))

    def _fused_settled(self, who: str, queue: str, message_id: str, row: StepRow | None) -> None:
        """A report of a step that was gone on with may be dropped when its step is not its worker's, and only then."""
        i, name, _, _ = message_id.split("/")
        if self._copies[queue, message_id]:
            return
        before = self.rows[i].get(self._graph(i).steps[name].predecessors[0])
        waits = before is None or (before.attempt == 1 and not before.status.is_terminal)
        run = self.runs[i]
        if row is None and waits and run.error is None and not run.status.is_terminal:
            self._broken("P4", f"{who} let {message_id} go before anybody knew whether it counts")
        elif (
            row is not None
            and row.status is Status.RUNNING
            and row.holder in self._said[message_id]
            and not self._fused.may_be_vain(row.holder, (i, name, 1), before)
        ):
            self._broken("P4", f"{who} let the report {message_id} go, and it is not recorded")

    def _was_fused(self, i: str, name: str) -> bool:
        """Whether a worker that went on with it said something about its first attempt."""
        return any(self._said[f"{i}/{name}/1/{what}"] for what in ("fused", "release"))

    def _is_out(self, message_id: str) -> bool:
        """Whether RabbitMQ has the assignment, or has refused it so that it is left to the sweep."""
        return message_id in self._taken or (message_id in self._sent and message_id in self._not_taken)

    def _died(self, event: Event) -> None:
        self._copies[event[3], event[5]] -= 1

    def _lost(self, event: Event) -> None:
        _, _, _, queue, kind, message_id, why = event
        self._copies[queue, message_id] -= 1
        self._purged.add(message_id)
        if "purged" not in why and "deleted" not in why:
            self._broken("P6", f"{kind} {message_id} vanished from {queue}: {why}")

    def _acked(self, event: Event) -> None:
        """What the caller was told holds (P4)."""
        _, _, _, what, i, told = event
        run = self.runs.get(i)
        if what == "dispatch":
            if run is None:
                self._broken("P4", f"the dispatch of {i} was acknowledged, and storage has no such run")
                return
            self._dispatches.acknowledged(i)
            self._look_at_starts(i)
        elif what == "replay" and not told and not (run is not None and run.replays):
            self._broken("P4", f"the replay of {i} was acknowledged, and it was never replayed")
        elif what == "cancel" and not told:
            self._history.bit("cancelled run")
            if run is not None and run.status is RunStatus.CANCELLED:
                return
            self._broken("P4", f"the cancellation of {i} was acknowledged, and it is not cancelled")
