"""Every exchange, queue and binding of ours, as data. No other module spells a name.

Permissions are the reason for the shape. RabbitMQ checks them by the name of an exchange or queue, so whoever may
write to an exchange may send anything through it, and the coordinator trusts the exchange that a message came through
(`Delivery.exchange`, set by the server), never its body:

- `<prefix>.reports.<workflow_id>` is the inbox of one workflow: reports and lease claims. A worker of another workflow
  has no permission for it.
- `<prefix>.commands` is for who may do everything (dispatch, cancel, ...), `<prefix>.commands.worker` for what workers
  ask (register, keep alive, check a redelivered assignment). Both lead to the queue `<prefix>.commands`.
- Heartbeats fan out: each coordinator has a private queue, so that all of them see every beat.

*Control notices* (stop a step, drain) have no exchange. Workers may not declare queues, and a queue they share would
give each notice to only one of them. So a worker consumes `amq.rabbitmq.reply-to` on its publishing channel (needs no
permission) and names it as `reply_to` of every heartbeat. RabbitMQ replaces that by an address of this one channel,
and a coordinator sends notices to that address through the default exchange. Every coordinator sees every beat, so
each knows how to reach each worker, with as many notices as it likes. The address ends with the channel, and RabbitMQ
does not tell whether anybody is there any more: 3.10 returns a mandatory message to such an address although it has
delivered it. So nothing that goes there is ever mandatory (the publisher sees to it), and a worker that missed a notice
is told again when its next beats carry what it should have stopped.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import quote, unquote

from fuseline.amqp.resources import Binding, Exchange, Policy, PrivateQueue, Queue, Resource
from fuseline.errors import CallerError

QueueType: TypeAlias = Literal["quorum", "classic"]

REPLY_TO: Final = "amq.rabbitmq.reply-to"
"""Consuming this pseudo-queue gives a channel an address of its own (direct reply-to)."""

DEFAULT_EXCHANGE: Final = ""
"""Routes by queue name or reply address."""

ANY_RUN: Final = "?"
"""Any run, in an event's key; no encoded id is this. Coordinators ask by it, and who names a run binds it too."""

# Redeliveries of one assignment after which it goes to the dead queue. RabbitMQ 3.10 has no limit of its own, 4.x has
# this one. Restarts of workers count too, so it is generous; the coordinator may call a step poison earlier.
DELIVERY_LIMIT: Final = 20

# Of what coordinators take. A message comes back whenever one is killed or cut off, and what 4.x allows, 20 times, is soon
# reached where connections flap. What nobody ever gets through with is parked, so that it ends no coordinator more.
COORDINATOR_DELIVERY_LIMIT: Final = 1000

# A beat says what is so now; an old one is of no use to a coordinator that comes back.
HEARTBEAT_TTL_SECONDS: Final = 30


_PREFIX = re.compile(r"[A-Za-z0-9_-]{1,40}")
# An AMQP name is at most 255 bytes: 40 of the prefix, 100 of each id, the rest for what is between.
_MAX_PART = 100
_DIGEST = 40


def encode_part(value: str, *, keep_dots: bool = False) -> str:
    """`value` as a part of a name: percent-encoded, different for different values, at most 100 bytes long.

    Dots are encoded, because they separate the parts, unless `keep_dots`, which is for a last part. What would be
    longer is cut and ends in `~` and a hash; `~` occurs in no other result.
    """
    if value.isascii() and value.isalnum() and len(value) <= _MAX_PART:
        return value
    return _encode_odd_part(value, keep_dots)


# Ids of workflows and names of events, for each message again. A text that is no UTF-8 raises each time.
@lru_cache(maxsize=4096)
def _encode_odd_part(value: str, keep_dots: bool) -> str:
    # quote() never touches `.` and `~`, which matter here.
    encoded = quote(value, safe="").replace("~", "%7E")
    if not keep_dots:
        encoded = encoded.replace(".", "%2E")
    if len(encoded) <= _MAX_PART:
        return encoded
    digest = hashlib.sha256(value.encode()).hexdigest()[:_DIGEST]
    return f"{encoded[: _MAX_PART - _DIGEST - 1]}~{digest}"


@dataclass(frozen=True, slots=True)
class Topology:
    """The names and declarations under one `prefix`. `queue_type` is for good: changing it means other queues.

    Raises `CallerError` when the prefix is not 1 to 40 letters, digits, `_` or `-`, or the queue type is unknown.
    """

    prefix: str = "fuseline"
    queue_type: QueueType = "quorum"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise CallerError(
                f"topology prefix {self.prefix!r}: 1 to 40 letters, digits, '_' or '-' are allowed"
            )
        if self.queue_type not in ("quorum", "classic"):
            raise CallerError(f"queue type {self.queue_type!r}: 'quorum' or 'classic'")

    # -- exchanges

    @property
    def steps_exchange(self) -> str:
        """Direct: assignments, by `steps_key`. Only coordinators write."""
        return f"{self.prefix}.steps"

    def reports_exchange(self, workflow_id: str) -> str:
        """Fanout: reports and claims of one workflow's workers."""
        return f"{self.prefix}.reports.{encode_part(workflow_id)}"

    def workflow_of_reports(self, exchange: str) -> str | None:
        """The workflow whose `reports_exchange` this is; None when it is none, or its id was too long to be kept whole."""
        return _workflow_of_reports(self, exchange)

    @property
    def commands_exchange(self) -> str:
        """Fanout: commands of whoever may do everything."""
        return f"{self.prefix}.commands"

    @property
    def worker_commands_exchange(self) -> str:
        """Fanout: commands of workers; the coordinator accepts only what a worker may ask."""
        return f"{self.prefix}.commands.worker"

    @property
    def heartbeats_exchange(self) -> str:
        """Fanout: beats of all workers, to every coordinator's own queue."""
        return f"{self.prefix}.heartbeats"

    @property
    def dead_exchange(self) -> str:
        """Fanout: where step queues dead-letter to."""
        return f"{self.prefix}.dead"

    @property
    def events_exchange(self) -> str:
        """Topic: run and step events, by `events_key`."""
        return f"{self.prefix}.events"

    # -- queues

    def steps_queue(self, workflow_id: str, version: str) -> str:
        """Where the workers of one workflow version take assignments from."""
        return f"{self.prefix}.steps.{self.steps_key(workflow_id, version)}"

    @property
    def reports_queue(self) -> str:
        """Reports and claims of all workflows, for the coordinators."""
        return f"{self.prefix}.reports"

    @property
    def commands_queue(self) -> str:
        """Commands from both command exchanges, for the coordinators."""
        return f"{self.prefix}.commands"

    @property
    def dead_queue(self) -> str:
        """Expired, rejected and over-delivered assignments, for the coordinators."""
        return f"{self.prefix}.dead"

    @property
    def parked_queue(self) -> str:
        """What nothing can decode or place, for people. Written to through the default exchange."""
        return f"{self.prefix}.parked"

    def heartbeats_queue(self, coordinator_id: str) -> PrivateQueue:
        """One coordinator's own queue of beats."""
        return PrivateQueue(
            f"{self.prefix}.heartbeats.{encode_part(coordinator_id)}",
            ((self.heartbeats_exchange, ""),),
            {"x-message-ttl": HEARTBEAT_TTL_SECONDS * 1000},
        )

    def observers_queue(self, observer: str) -> str:
        """What the names of an observer's own queues begin with; RabbitMQ's permission for the user `observer`."""
        return f"{self.prefix}.observers.{encode_part(observer)}"

    # -- routing keys

    def steps_key(self, workflow_id: str, version: str) -> str:
        """`<workflow_id>.<version>`, encoded: no two pairs have the same key."""
        return _steps_key(workflow_id, version)

    def events_key(self, workflow_id: str, instance_id: str, event: str) -> str:
        """`<workflow_id>.<instance_id>.<event>`, encoded."""
        return self.events_prefix(workflow_id, instance_id) + encode_part(event)

    def events_prefix(self, workflow_id: str, instance_id: str) -> str:
        """What the keys of all events of a run begin with; the encoded event follows."""
        return f"{encode_part(workflow_id)}.{encode_part(instance_id)}."

    def any_run_key(self, workflow_id: str, event: str) -> str:
        """By which a coordinator asks whether anybody listens to such events of any run."""
        return f"{encode_part(workflow_id)}.{ANY_RUN}.{encode_part(event)}"

    def events_patterns(
        self, workflow_id: str | None = None, instance_id: str | None = None, event: str | None = None
    ) -> list[str]:
        """The binding keys for events; None is any. Who names a run has two: he is noticed by the other one."""
        workflow, run, kind = (
            "*" if part is None else encode_part(part) for part in (workflow_id, instance_id, event)
        )
        runs = [run] if instance_id is None else [run, ANY_RUN]
        return [f"{workflow}.{one}.{kind}" for one in runs]

    # -- declarations

    def base_resources(self) -> list[Resource]:
        """What every installation has, in the order of declaration."""
        return [
            Exchange(self.steps_exchange, "direct"),
            Exchange(self.commands_exchange, "fanout"),
            Exchange(self.worker_commands_exchange, "fanout"),
            Exchange(self.heartbeats_exchange, "fanout"),
            Exchange(self.dead_exchange, "fanout"),
            Exchange(self.events_exchange, "topic"),
            Queue(self.parked_queue, {"x-queue-type": self.queue_type}),
            Queue(self.reports_queue, self._coordinators_arguments()),
            Queue(self.commands_queue, self._coordinators_arguments()),
            Queue(self.dead_queue, self._coordinators_arguments()),
            Binding(self.commands_exchange, self.commands_queue),
            Binding(self.worker_commands_exchange, self.commands_queue),
            Binding(self.dead_exchange, self.dead_queue),
        ]

    def workflow_resources(self, workflow_id: str, version: str) -> list[Resource]:
        """What one workflow version adds to `base_resources`."""
        queue = self.steps_queue(workflow_id, version)
        reports = self.reports_exchange(workflow_id)
        return [
            Exchange(reports, "fanout"),
            Binding(reports, self.reports_queue),
            Queue(queue, self._steps_arguments()),
            Binding(self.steps_exchange, queue, self.steps_key(workflow_id, version)),
        ]

    def policies(self) -> list[Policy]:
        """Starting values for what an operator may tune: how much may wait before RabbitMQ refuses more.

        Refused publishes are nacked (the publisher gets `BrokerBusyError`); nothing that waits is ever dropped.
        """
        name = re.escape(self.prefix)
        return [
            Policy(
                f"{self.prefix}-steps",
                rf"^{name}\.steps\.",
                _at_most(1_000_000),
            ),
            Policy(
                f"{self.prefix}-parked",
                rf"^{name}\.parked$",
                _at_most(100_000),
            ),
        ]

    def _coordinators_arguments(self) -> dict[str, Any]:
        if self.queue_type == "classic":
            return {"x-queue-type": self.queue_type}  # no delivery limit, so nothing dies there
        return {
            **self._dying(DEFAULT_EXCHANGE, COORDINATOR_DELIVERY_LIMIT),
            "x-dead-letter-routing-key": self.parked_queue,
        }

    def _steps_arguments(self) -> dict[str, Any]:
        return self._dying(self.dead_exchange, DELIVERY_LIMIT)

    def _dying(self, exchange: str, deliveries: int) -> dict[str, Any]:
        """Arguments of a queue whose messages go through `exchange` when they die, after so many deliveries too."""
        arguments: dict[str, Any] = {
            "x-queue-type": self.queue_type,
            "x-dead-letter-exchange": exchange,
            # Dead-lettering at least once needs it: with drop-head it silently falls back to at most once.
            "x-overflow": "reject-publish",
        }
        if self.queue_type == "quorum":
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-delivery-limit": deliveries}
        return arguments


def _at_most(messages: int) -> dict[str, Any]:
    return {"max-length": messages, "overflow": "reject-publish"}


# For each assignment again.
@lru_cache(maxsize=4096)
def _steps_key(workflow_id: str, version: str) -> str:
    return f"{encode_part(workflow_id)}.{encode_part(version, keep_dots=True)}"


@lru_cache(maxsize=4096)
def _workflow_of_reports(topology: Topology, exchange: str) -> str | None:
    workflow_id = unquote(exchange.removeprefix(f"{topology.prefix}.reports."))
    return workflow_id if exchange == topology.reports_exchange(workflow_id) else None
