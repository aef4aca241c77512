"""The report as one HTML file that needs nothing beside it."""

from __future__ import annotations

from html import escape

from fuseline.examples.stdlib_report.report import Report, Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #657085; --line: #dfe4ec; --page: #f6f7fa; --card: #fff;
  --bar: #3d7be8; --glow: #dbe7ff; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8f0; --soft: #93a0b8; --line: #2b3342; --page: #12161e; --card: #1a202b; --bar: #5b95ff;
    --glow: #22314f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.02em; }
h2 { font-size: 1.15rem; margin: 0; }
p { color: var(--soft); margin: .2rem 0 1rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 2rem 0; }
.figure, section { background: var(--card); border: 1px solid var(--line); border-radius: .7rem; }
.figure { padding: 1rem 1.1rem; }
.figure b { display: block; font-size: 1.65rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.figure span { color: var(--soft); font-size: .85rem; }
section { padding: 1.2rem 1.3rem; margin: 1.2rem 0; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: .3rem .7rem .3rem 0; text-align: right; border-top: 1px solid var(--line); white-space: nowrap;
  font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; font-size: .82rem; border: 0; }
th:first-child, td:first-child, .text { text-align: left; }
td:first-child { font-weight: 550; }
td.text { white-space: normal; color: var(--soft); }
.bar { width: 34%; padding-right: 1rem; }
.bar div { background: var(--glow); border-radius: .25rem; }
.bar i { display: block; height: .62rem; border-radius: .25rem; background: var(--bar); }
"""


def to_html(report: Report) -> str:
    """One page, in the reader's light or dark colours."""
    figures = "".join(
        f'<div class="figure"><b>{escape(value)}</b><span>{escape(name)}</span></div>'
        for name, value in report.figures
    )
    tables = "\n".join(_section(table) for table in report.tables)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(report.title)}</h1>\n<p>{escape(report.subtitle)}</p>\n"
        f'<div class="figures">{figures}</div>\n{tables}\n</main>\n</body>\n</html>\n'
    )


def _section(table: Table) -> str:
    head = f"<h2>{escape(table.title)}</h2>\n<p>{escape(table.explanation)}</p>"
    if not table.rows:
        return f"<section>\n{head}\n</section>"
    return f"<section>\n{head}\n<table>\n{_headings(table)}\n{_rows(table)}\n</table>\n</section>"


def _headings(table: Table) -> str:
    cells = [
        f"<th>{escape(name)}</th>" if table.is_number(i) else f'<th class="text">{escape(name)}</th>'
        for i, name in enumerate(table.columns)
    ]
    if table.bar is not None:
        cells.insert(table.bar + 1, "<th></th>")
    return f"<tr>{''.join(cells)}</tr>"


def _rows(table: Table) -> str:
    values = [] if table.bar is None else [_value(row[table.bar]) for row in table.rows]
    longest = max(values, default=0) or 1
    rows = []
    for index, row in enumerate(table.rows):
        cells = [
            f"<td>{escape(text)}</td>"
            if i == 0 or table.is_number(i)
            else f'<td class="text">{escape(text)}</td>'
            for i, text in enumerate(row)
        ]
        if table.bar is not None:
            width = 100 * values[index] / longest
            bar = f'<td class="bar"><div><i style="width:{width:.1f}%"></i></div></td>'
            cells.insert(table.bar + 1, bar)
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return "\n".join(rows)


def _value(text: str) -> float:
    return float(text.replace(",", ""))
