"""RabbitMQ: reachable, which version, what this user may do, whether everything is declared, whether somebody answers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from fuseline.amqp.resources import Finding, Queue, Resource, Verdict
from fuseline.amqp.server import OLDEST_SUPPORTED, ServerInfo
from fuseline.amqp.sync import BackgroundLink
from fuseline.amqp.topology import Topology
from fuseline.cli.doctor.checks import Check, Health
from fuseline.cli.doctor.queues import examine_queues
from fuseline.errors import (
    AccessRefusedError,
    CallerError,
    DeadlineExceededError,
    FatalError,
    FuselineError,
    RetryableError,
)

APPLY = "fuseline topology apply, or start a coordinator"
_NEWEST_TESTED = (4, 3)


def examine_rabbitmq(
    urls: Sequence[str],
    topology: Topology,
    workflows: Sequence[tuple[str, str]],
    deadline_seconds: float,
) -> Iterator[Check]:
    """One check after another; the first that fails may be the last. `workflows`: the versions that are registered."""
    try:
        link = BackgroundLink(urls, name=f"fuseline doctor {os.getpid()}")
    except CallerError as error:
        yield Check("RabbitMQ", Health.PROBLEM, str(error), "correct FUSELINE_AMQP_URL")
        return
    with link:
        try:
            server = link.connect(deadline_seconds)
        except FatalError as error:
            yield Check(
                "RabbitMQ", Health.PROBLEM, str(error), "correct user and password in FUSELINE_AMQP_URL"
            )
            return
        except RetryableError as error:
            yield Check(
                "RabbitMQ", Health.PROBLEM, str(error), "start RabbitMQ, or correct FUSELINE_AMQP_URL"
            )
            return
        yield _version(server)
        yield _consumer_timeout(server)
        yield from _topology(link, topology, workflows, deadline_seconds)


def _version(server: ServerInfo) -> Check:
    if not server.supported:
        oldest = ".".join(map(str, OLDEST_SUPPORTED))
        return Check(
            "RabbitMQ", Health.PROBLEM, f"reachable: {server}", f"RabbitMQ {oldest} or later is needed"
        )
    if server.version_parts[:2] > _NEWEST_TESTED:
        newest = ".".join(map(str, _NEWEST_TESTED))
        return Check(
            "RabbitMQ", Health.NOTE, f"reachable: {server}, newer than the newest that was tested ({newest})"
        )
    return Check("RabbitMQ", Health.OK, f"reachable: {server}")


def _consumer_timeout(server: ServerInfo) -> Check:
    """AMQP cannot ask for it; what is known is what follows from the version."""
    if server.consumer_timeout_argument:
        told = "workers set their own with each consumer"
    else:
        told = "the node's own counts (30 min unless its configuration says otherwise), which AMQP cannot ask for"
    return Check("consumer timeout", Health.OK if server.consumer_timeout_argument else Health.NOTE, told)


def _topology(
    link: BackgroundLink, topology: Topology, workflows: Sequence[tuple[str, str]], deadline_seconds: float
) -> Iterator[Check]:
    resources: list[Resource] = topology.base_resources()
    for key in workflows:
        resources += [one for one in topology.workflow_resources(*key) if one not in resources]
    try:
        verdicts = link.verify(resources, deadline_seconds=deadline_seconds)
    except FuselineError as error:
        yield Check("topology", Health.PROBLEM, str(error), APPLY)
        return
    missing = [v for v in verdicts if v.finding is Finding.MISSING]
    different = [v for v in verdicts if v.finding is Finding.DIFFERS]
    refused = [v for v in verdicts if v.finding is Finding.UNKNOWN and "ACCESS_REFUSED" in v.detail]
    yield _rights(refused, resources)
    if missing:
        yield Check("topology", Health.PROBLEM, f"missing: {_some(missing)}", APPLY)
    for verdict in different:
        yield Check(
            "topology",
            Health.PROBLEM,
            f"{verdict.resource} differs: {verdict.detail}",
            "set FUSELINE_QUEUE_TYPE back, take another FUSELINE_PREFIX, or delete it when it is empty",
        )
    if not missing and not different:
        versions = f", {len(workflows)} workflow versions" if workflows else ""
        yield Check("topology", Health.OK, f"{len(resources)} exchanges, queues and bindings{versions}")
    if topology.queue_type == "quorum":
        there = [v.resource for v in verdicts if v.finding is Finding.OK]
        yield from examine_queues(link, [one for one in there if isinstance(one, Queue)])


def _rights(refused: Sequence[Verdict], resources: Sequence[Resource]) -> Check:
    if not refused:
        return Check("rights", Health.OK, "this user may declare the topology")
    return Check(
        "rights",
        Health.NOTE,
        f"this user may not compare {len(refused)} of {len(resources)} things ({_some(refused)}): "
        "fine for a worker or a dispatcher, not for a coordinator",
    )


def _some(verdicts: Sequence[Verdict]) -> str:
    names = [str(verdict.resource) for verdict in verdicts]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def explain_silence(error: FuselineError) -> Check:
    """Why nobody answered a request that a coordinator answers."""
    match error:
        case AccessRefusedError():
            return Check("coordinator", Health.NOTE, f"this user may not ask one: {error}")
        case DeadlineExceededError():
            return Check("coordinator", Health.PROBLEM, str(error), "start one: fuseline coordinator")
        case _:
            return Check("coordinator", Health.PROBLEM, str(error), "start one: fuseline coordinator")
