"""The floor's worker."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from pydantic_core import from_json, to_json

from fuseline.bench.floor.post import Letter, Post
from fuseline.bench.parent import Parent

PREFETCH = 64


def execute(reports: str, bodies: list[bytes]) -> Iterator[Letter]:
    """The reports on assignments, for their queue.

    `fails` and `size` come with the random graphs, whose steps fail and make results.
    """
    for body in bodies:
        asked: dict[str, Any] = from_json(body)
        report = {"run": asked["run"], "step": asked["step"], "attempt": asked["attempt"]}
        if asked.get("fails"):
            yield reports, to_json({**report, "state": "failed"})
        else:
            size = asked.get("size")
            result = asked["inputs"] if size is None else "r" * size
            yield reports, to_json({**report, "state": "done", "result": result})


def run_worker(parent: Parent) -> None:
    """Execute until the parent is gone."""
    job = parent.job
    post = Post(job["amqp_url"], job["assignments"], PREFETCH, partial(execute, job["reports"]), parent.ready)
    parent.listen(
        lambda _question: parent.tell({"messages": post.published, "frames": post.frames, "acks": post.acks}),
        post.stop,
    )
    post.run()
