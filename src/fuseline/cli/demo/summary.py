"""What a demonstration ends with."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.text import Text

from fuseline.cli.output import duration
from fuseline.examples.stdlib_report.workflow import Written
from fuseline.model import RunStatus, RunView


class Summary(BaseModel):
    """The result, for people and (`--json`) for programs. `executed`: steps by the process that executed them."""

    model_config = ConfigDict(frozen=True)

    instance_id: str
    state: RunStatus
    seconds: float
    report: Written | None
    executed: dict[str, list[str]]
    repeated: list[str]
    killed: str | None = None
    held_when_killed: list[str] = []
    compared_with: str | None = None

    @property
    def same(self) -> bool:
        """False only when a comparison was made and the reports differ."""
        return self.compared_with is None or (
            self.report is not None and self.report.sha256 == self.compared_with
        )

    @property
    def fine(self) -> bool:
        """Whether the demonstration showed what it is to show."""
        return self.state is RunStatus.SUCCEEDED and self.report is not None and self.same


def summarize(run: RunView, names: Mapping[str, str], **more: Any) -> Summary:
    """What the run's view tells; `names` of workers by worker id."""
    executed: dict[str, list[str]] = defaultdict(list)
    for step in run.steps.values():
        if step.worker_id is not None:
            executed[names.get(step.worker_id, step.worker_id)].append(step.name)
    written = run.outputs.get("write_report")
    return Summary(
        instance_id=run.instance_id,
        state=run.state,
        seconds=(run.finished_at or run.created_at) - run.created_at,
        report=None if written is None else Written(**written),
        executed=dict(sorted(executed.items())),
        repeated=[step.name for step in run.steps.values() if step.attempt > 1],
        **more,
    )


def show_summary(summary: Summary, console: Console, look: Sequence[str] = ()) -> None:
    """Print it. `look`: commands that show more."""
    console.print()
    if len(summary.executed) > 1:
        for process, steps in summary.executed.items():
            console.print(Text(f"{process:<26}", "dim") + Text(f"{len(steps):>3} steps"))
    if summary.killed is not None:
        held = ", ".join(summary.held_when_killed) or "nothing"
        console.print(Text.assemble(("killed: ", "red"), f"{summary.killed}, which held {held}"))
    if summary.repeated:
        console.print(Text(f"executed again: {', '.join(summary.repeated)}"))
    if summary.report is None:
        console.print(Text(f"the run {summary.state.value}", "bold red"))
        return
    report = summary.report
    console.print(
        Text.assemble(
            (f"{report.files:,} files", "bold"),
            f" analysed in {duration(summary.seconds)}; {report.broken} do not parse",
        )
    )
    console.print(Text.assemble(("report  ", "dim"), (_shown(report.html), "bold green")))
    console.print(Text.assemble(("        ", "dim"), _shown(report.markdown)))
    console.print(Text.assemble(("sha256  ", "dim"), report.sha256))
    if summary.compared_with is not None:
        if summary.same:
            console.print(
                Text("        the same as that of a run in this process, without any broker", "green")
            )
        else:
            told = f"        differs from that of a run in this process: {summary.compared_with}"
            console.print(Text(told, "bold red"))
    for command in look:
        console.print(Text.assemble(("more    ", "dim"), command))


def _shown(path: str) -> str:
    """Relative to here where that is shorter."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path
