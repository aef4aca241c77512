"""What a message is called in the history: by its type and id, several reports in one by those of each."""

from __future__ import annotations

from fuseline.amqp import codec
from fuseline.amqp.codec import Properties
from fuseline.amqp.wire import report_id


def told(properties: Properties, body: bytes) -> list[tuple[str, str]]:
    """(type, message id) of all that is in it."""
    if properties.type != codec.REPORTS:
        return [(str(properties.type), str(properties.message_id))]
    found = []
    for line in body.split(b"\n"):
        said = codec.decode(line)
        name = report_id(
            said["instance_id"],
            said["step_name"],
            said["attempt"],
            is_fused=said.get("continued_from") is not None,
        )
        found.append((codec.REPORT, name))
    return found
