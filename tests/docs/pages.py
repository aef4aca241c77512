"""Reads the fenced snippets of a Markdown page, and what the page says is to be done with each.

CONTRIBUTING.md ("Snippets in the documentation") is the specification.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

SHELLS = frozenset({"console", "bash"})
DATA = frozenset({"json", "yaml", "toml"})
# What is only looked at. A language that is not known is an error, so that a typo cannot keep a snippet from running.
SHOWN = frozenset({"text", "mermaid", "sql", "ini", "dockerfile", "http", "erlang"})
LANGUAGES = frozenset({"python"}) | SHELLS | DATA | SHOWN

# The only reasons for which Python may stand in a page without being run.
NO_RUN_REASONS = {
    "interface": "shows a signature of the library, with nothing to run",
    "outside-service": "needs a service that no test can have, such as somebody's cluster",
}

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,}|~{3,})(?P<info>[^`]*)$")
_INFO = re.compile(r'^(?P<language>[a-z]*)(?: title="(?P<title>[\w./-]+)")?$')
_DIRECTIVE = re.compile(r'^ *<!-- snippet: (?P<what>[a-z-]+)(?: reason="(?P<reason>[a-z-]+)")? -->$')


class PageError(Exception):
    """A page breaks the rules for snippets; the message begins with page and line."""


@dataclass(frozen=True)
class Snippet:
    """One fenced block. `line` is that of its first line of text; `what` is run, background, no-run or empty."""

    page: Path
    line: int
    language: str
    text: str
    title: str | None = None
    what: str = ""

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def executed(self) -> bool:
        if self.language == "python":
            return self.what != "no-run"
        return self.what in {"run", "background"}


def all_pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def read_page(page: Path) -> list[Snippet]:
    """Every snippet of the page, in order. Raises `PageError` for one that says something unknown about itself."""
    lines = page.read_text().splitlines()
    snippets: list[Snippet] = []
    directive: tuple[int, re.Match[str]] | None = None
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if "<!-- snippet" in line:
            found = _DIRECTIVE.match(line)
            if found is None:
                raise PageError(f"{page}:{number}: not a snippet comment that is known: {line.strip()}")
            directive = (number, found)
            continue
        opening = _FENCE.match(line)
        if opening is None:
            if line.strip() and directive is not None:
                raise PageError(f"{page}:{directive[0]}: a snippet comment stands right before its snippet")
            continue
        start = number
        closing = re.compile(rf"^ *{re.escape(opening['ticks'])} *$")
        while number < len(lines) and not closing.match(lines[number]):
            number += 1
        if number == len(lines):
            raise PageError(f"{page}:{start}: this snippet never ends")
        text = textwrap.dedent("\n".join(lines[start:number]) + "\n")
        snippets.append(_snippet(page, start + 1, opening["info"].strip(), text, directive and directive[1]))
        directive = None
        number += 1
    return snippets


def _snippet(page: Path, line: int, info: str, text: str, directive: re.Match[str] | None) -> Snippet:
    where = f"{page}:{line - 1}"
    parts = _INFO.match(info)
    if parts is None or parts["language"] not in LANGUAGES:
        raise PageError(f'{where}: a snippet is opened by a language and perhaps title="file", not {info!r}')
    what = directive["what"] if directive else ""
    reason = directive["reason"] if directive else None
    language = parts["language"]
    allowed = {"no-run"} if language == "python" else {"run", "background"} if language in SHELLS else set()
    if what and what not in allowed:
        raise PageError(
            f"{where}: {what!r} means nothing for {language}; known: {sorted(allowed) or 'nothing'}"
        )
    if what == "no-run" and reason not in NO_RUN_REASONS:
        raise PageError(f"{where}: no-run needs a reason out of {sorted(NO_RUN_REASONS)}, not {reason!r}")
    if reason is not None and what != "no-run":
        raise PageError(f"{where}: only no-run has a reason")
    return Snippet(page, line, language, text, parts["title"], what)


@dataclass(frozen=True)
class Command:
    """One command of a shell snippet, and the output that the page shows for it (console only)."""

    line: int
    text: str
    output: list[str]


def commands_in(snippet: Snippet) -> list[Command]:
    """`$ ` begins a command in `console`, and a backslash carries it on; in `bash` every line is one."""
    commands: list[Command] = []
    continued = False
    for number, line in enumerate(snippet.text.splitlines(), snippet.line):
        prompt = line.startswith("$ ")
        if continued:
            last = commands.pop()
            carried_on = line.removeprefix("> ") if snippet.language == "console" else line
            commands.append(Command(last.line, f"{last.text}\n{carried_on}", []))
        elif snippet.language == "console" and not prompt:
            if commands and line.strip():
                commands[-1].output.append(line)
            elif line.strip():
                raise PageError(f"{snippet.page}:{number}: output before any command")
            continue
        elif line.strip() and not line.lstrip().startswith("#"):
            commands.append(Command(number, line.removeprefix("$ "), []))
        continued = bool(commands) and commands[-1].text.endswith("\\")
    return commands
