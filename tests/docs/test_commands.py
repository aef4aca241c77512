"""Every `fuseline` and `make` command in the documentation exists, with the options that are shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from fuseline.cli.main import app
from tests.docs.pages import ROOT, SHELLS, Snippet, all_pages, commands_in, read_page

TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
SEPARATORS = frozenset({"|", "||", "&&", ";", "&"})
SNIPPETS = [snippet for page in all_pages() for snippet in read_page(page) if snippet.language in SHELLS]


def simple_commands(text: str) -> list[list[str]]:
    """The words of each command in a line of shell, without what stands before it (`NAME=value`)."""
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    commands: list[list[str]] = [[]]
    for word in lexer:
        if word in SEPARATORS:
            commands.append([])
        elif commands[-1] or not re.fullmatch(r"[A-Za-z_]\w*=.*", word, re.DOTALL):
            commands[-1].append(word)
    return [
        command[: next((i for i, word in enumerate(command) if word[0] in "<>"), None)]
        for command in commands
        if command
    ]


def parse(command: Any, name: str, words: list[str]) -> None:
    """Let the command line's own parser read the words, and execute nothing."""
    context = command.make_context(name, list(words))
    if hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        _, child, rest = command.resolve_command(context, rest)
        parse(child, f"{name} {child.name}", rest)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: str(snippet.place).removeprefix(f"{ROOT}/"))
def test_the_commands_shown_exist(snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for other in read_page(snippet.page):
        if other.title is not None:
            (tmp_path / other.title).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / other.title).write_text(other.text)
    monkeypatch.chdir(tmp_path)
    for command in commands_in(snippet):
        for words in simple_commands(command.text):
            where = f"{snippet.page}:{command.line}: {' '.join(words)}"
            if Path(words[0]).name == "fuseline":
                try:
                    parse(typer.main.get_command(app), "fuseline", words[1:])
                except typer.Exit:
                    pass  # --help and --version
                except Exception as error:
                    raise AssertionError(f"{where}: {error!r}") from error
            elif words[0] == "make":
                asked = {word for word in words[1:] if "=" not in word and not word.startswith("-")}
                assert asked <= TARGETS, f"{where}: no such target"
