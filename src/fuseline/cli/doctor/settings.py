"""Do the settings make sense, alone and together?"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

from fuseline.cli.doctor.checks import Check, Health
from fuseline.settings import Settings
from fuseline.testing.servers import AMQP_URL_VARIABLE, POSTGRES_URL_VARIABLE, RABBITMQ_ROOT_VARIABLE

_PREFIX = "FUSELINE_"
_OTHERS = {AMQP_URL_VARIABLE, POSTGRES_URL_VARIABLE, RABBITMQ_ROOT_VARIABLE}
_CONSUMER_TIMEOUT_SECONDS = 30 * 60


def examine_settings(settings: Settings, environment: Mapping[str, str]) -> Iterator[Check]:
    """Misspelt variables, and numbers that contradict each other."""
    found = list(_unknown_variables(environment)) + list(_contradictions(settings))
    if found:
        yield from found
    else:
        given = sorted(settings.model_fields_set)
        told = ", ".join(given) if given else "all defaults"
        yield Check("settings", Health.OK, f"set: {told}" if given else told)


def _unknown_variables(environment: Mapping[str, str]) -> Iterator[Check]:
    fields = [field.upper() for field in Settings.model_fields]
    known = {_PREFIX + field for field in fields} | _OTHERS
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in known:
            close = difflib.get_close_matches(name.removeprefix(_PREFIX), fields, n=1)
            advice = f"did you mean {_PREFIX}{close[0]}?" if close else "remove it, or look up its name"
            yield Check("settings", Health.WARNING, f"{name} is no setting and has no effect", advice)


def _contradictions(settings: Settings) -> Iterator[Check]:
    if settings.heartbeat_seconds * 2 > settings.lease_seconds:
        yield Check(
            "settings",
            Health.PROBLEM,
            f"a heartbeat every {settings.heartbeat_seconds:g} s, but a lease of {settings.lease_seconds:g} s: "
            "one beat that comes late ends it",
            "FUSELINE_LEASE_SECONDS at least three times FUSELINE_HEARTBEAT_SECONDS",
        )
    elif settings.heartbeat_seconds * 3 > settings.lease_seconds:
        yield Check(
            "settings",
            Health.WARNING,
            f"a lease of {settings.lease_seconds:g} s is over when two beats come late",
            "FUSELINE_LEASE_SECONDS at least three times FUSELINE_HEARTBEAT_SECONDS",
        )
    if settings.claim_after_seconds > _CONSUMER_TIMEOUT_SECONDS / 2:
        yield Check(
            "settings",
            Health.WARNING,
            f"workers hold a delivery for {settings.claim_after_seconds:g} s; RabbitMQ's own limit is 30 min",
            "FUSELINE_CLAIM_AFTER_SECONDS of 10 s or so",
        )
