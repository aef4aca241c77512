"""The standard library of the interpreter that executes it, parsed, counted, ranked and written up."""

from fuseline.examples.stdlib_report.workflow import stdlib_report

__all__ = ["stdlib_report"]
