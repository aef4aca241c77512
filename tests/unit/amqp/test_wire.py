"""P7: an undecodable message is an error that names the field, never something half read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fuseline.amqp.codec import encode
from fuseline.amqp.wire import Claim, Command, ControlKind, ControlNotice, Heartbeat, Reply, read, report_id
from fuseline.errors import InvalidMessageError, StaleReportError
from fuseline.model import StepReport
from fuseline.model.schema import MAX_ID_LENGTH

BEAT = Heartbeat(
    worker_id="w1", workflows=[("ingest", "1")], leases=[("run", "parse", 2)], host="h", pid=7, sent_at=1.5
)


@pytest.mark.parametrize(
    "message",
    [
        BEAT,
        Claim(workflow_id="w", instance_id="i", step_name="s", attempt=3, worker_id="x"),
        Command(name="dispatch", args={"inputs": {"a": [1, None]}}),
        Reply(ok=True, result={"id": "x"}),
        Reply.failure(StaleReportError("too late")),
        ControlNotice(kind=ControlKind.STOP, instance_id="i", attempts=[("s", 1)], worker_id="w"),
        ControlNotice(kind=ControlKind.DRAIN),
    ],
)
def test_messages_survive_the_wire(message: Claim | Command | Heartbeat | Reply | ControlNotice) -> None:
    assert read(type(message), encode(message)) == message


def test_a_beat_is_the_json_that_other_languages_send() -> None:
    assert encode(BEAT) == (
        b'{"worker_id":"w1","workflows":[["ingest","1"]],"leases":[["run","parse",2]],"host":"h","pid":7,"sent_at":1.5}'
    )


@pytest.mark.parametrize(
    ("model", "body", "place"),
    [
        (Claim, b'{"workflow_id":"w","instance_id":"i","worker_id":"x"}', "step_name"),
        (
            Claim,
            b'{"workflow_id":"w","instance_id":"i","step_name":"s","attempt":0,"worker_id":"x"}',
            "attempt",
        ),
        (Claim, b'{"workflow_id":"","instance_id":"i","step_name":"s","worker_id":"x"}', "workflow_id"),
        (Claim, b"[]", "JSON object"),
        (Claim, b"{", "not JSON"),
        (Heartbeat, b'{"worker_id":"w","sent_at":1,"leases":[["i","s",1],["i","s"]]}', "leases.1"),
        (Heartbeat, b'{"worker_id":"w","sent_at":"soon"}', "sent_at"),
        (Command, b'{"args":{}}', "name"),
        (Command, b'{"name":"x","args":[]}', "args"),
        (Reply, b'{"ok":false}', "error"),
        (Reply, b'{"ok":true,"error":{"code":"x"}}', "error"),
        (ControlNotice, b'{"kind":"explode"}', "kind"),
        (ControlNotice, b'{"kind":"stop"}', "instance_id"),
        (StepReport, b'{"workflow_id":"w","instance_id":"i","step_name":"s","state":"RUNNING"}', "state"),
    ],
)
def test_a_wrong_field_is_named(model: type[Claim], body: bytes, place: str) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        read(model, body)
    assert place in str(caught.value)


def test_fields_of_a_newer_sender_are_ignored() -> None:
    assert read(Command, b'{"name":"x","shiny":1}') == Command(name="x")


def test_an_error_comes_out_as_what_it_was() -> None:
    reply = read(Reply, encode(Reply.failure(StaleReportError("attempt 2 is over"))))
    with pytest.raises(StaleReportError, match="attempt 2 is over"):
        reply.value()
    assert Reply(ok=True, result=3).value() == 3


def test_a_reply_is_one_or_the_other() -> None:
    with pytest.raises(ValidationError):
        Reply(ok=False)


@pytest.mark.parametrize("field", ["worker_id", "instance_id", "step_name"])
def test_a_name_with_a_nul_is_refused_as_no_database_may_hold_it(field: str) -> None:
    claim = {"workflow_id": "w", "instance_id": "i", "step_name": "s", "worker_id": "x"} | {field: "a\0b"}
    with pytest.raises(InvalidMessageError, match=field):
        read(Claim, encode(claim))
    with pytest.raises(InvalidMessageError, match="worker_id"):
        read(Heartbeat, encode({"worker_id": "a\0b", "sent_at": 1.0}))


@pytest.mark.parametrize("is_fused", [False, True])
def test_the_longest_names_make_a_message_id_that_amqp_takes(is_fused: bool) -> None:
    """P1: a report that can never be sent ends its worker, and one that cannot be put back holds up all after it."""
    longest = "x" * MAX_ID_LENGTH
    assert len(report_id(longest, longest, 99_999, is_fused=is_fused)) <= 255
