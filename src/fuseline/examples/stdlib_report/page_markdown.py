"""The report as Markdown."""

from __future__ import annotations

from fuseline.examples.stdlib_report.report import Report, Table


def to_markdown(report: Report) -> str:
    """One page."""
    parts = [
        f"# {report.title}",
        report.subtitle,
        "\n".join(f"- **{value}** {name}" for name, value in report.figures),
    ]
    for table in report.tables:
        parts += [f"## {table.title}", table.explanation]
        if table.rows:
            parts.append(_table(table))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    dashes = ["---"] + ["---:" if table.is_number(i) else "---" for i in range(1, len(table.columns))]
    lines = [table.columns, tuple(dashes), *table.rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(escaped.replace("_", "\\_").split()) or " "
