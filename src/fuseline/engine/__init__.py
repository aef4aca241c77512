"""The pure scheduler: no I/O, no clock, no logging, no await."""

from fuseline.engine.effects import (
    Decision,
    Effect,
    FinishRun,
    Notice,
    QueueStep,
    StopHolder,
    StopSteps,
    Verdict,
)
from fuseline.engine.machine import decide, new_run, wanted
from fuseline.engine.plan import Plan, StepPlan, compile_plan
from fuseline.engine.rules import Rules
from fuseline.engine.state import JoinRow, NotLoaded, RunRow, Snapshot, StepRow, implied_status

__all__ = [
    "Decision",
    "Effect",
    "FinishRun",
    "JoinRow",
    "NotLoaded",
    "Notice",
    "Plan",
    "QueueStep",
    "RunRow",
    "Rules",
    "Snapshot",
    "StepPlan",
    "StepRow",
    "StopHolder",
    "StopSteps",
    "Verdict",
    "compile_plan",
    "decide",
    "implied_status",
    "new_run",
    "wanted",
]
