"""The rules for snippets hold for themselves: a page that is wrong fails, and says where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import PageError, commands_in, read_page
from tests.docs.test_snippets import AMQP_ADDRESS, HTTP_PORT, POSTGRES_ADDRESS, run_page


def write(folder: Path, text: str) -> Path:
    page = folder / "page.md"
    page.write_text(text)
    return page


def outcome(folder: Path, text: str, **replacements: str) -> str:
    """What executing the page printed, errors included; empty when all was well and quiet."""
    done = run_page(write(folder, text), folder, replacements, {})
    assert (done.returncode == 0) == ("Error" not in done.stdout), done.stdout
    return done.stdout


def test_snippets_of_a_page_share_their_names_and_their_folder(tmp_path: Path) -> None:
    text = """
```python title="lib/greeting.py"
def greet(name: str) -> str:
    return f"hello {name}"
```
=== "A tab"

    ```python
    from dataclasses import dataclass
    from typing import get_type_hints
    @dataclass
    class Guest:
        name: "Name"
    class Name(str): ...
    assert get_type_hints(Guest) == {"name": Name}
    print(greet("folder"))
    ```

```python
import inspect
assert 'name: "Name"' in inspect.getsource(Guest)
```
<!-- snippet: run -->
```console
$ python -c 'from lib.greeting import greet; print("first"); print(greet("shell")); print("more")' && \\
> echo last
hello ...ell
...
last
$ test -f lib/greeting.py
```
"""
    assert outcome(tmp_path, text) == "hello folder\n"


def test_an_error_names_the_line_of_the_page(tmp_path: Path) -> None:
    assert 'page.md", line 4' in outcome(tmp_path, "text\n\n```python\nraise ValueError('Error')\n```\n")


def test_output_that_does_not_come_fails(tmp_path: Path) -> None:
    said = outcome(tmp_path, "<!-- snippet: run -->\n```console\n$ echo one two\none ... three\n```\n")
    assert "page.md:3: echo one two\ndid not print 'one ... three'" in said


def test_a_command_that_fails_fails(tmp_path: Path) -> None:
    assert "ended with 3" in outcome(tmp_path, "<!-- snippet: run -->\n```bash\nexit 3\n```\n")


def test_a_background_command_lives_until_the_pages_end(tmp_path: Path) -> None:
    text = """
```python title="daemon.py"
import pathlib
import signal
if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    print("up", flush=True)
    signal.sigwait([signal.SIGTERM])
    pathlib.Path("down").touch()
```
<!-- snippet: background -->
```console
$ python daemon.py
```
```python
from pathlib import Path
assert not Path("down").exists()
```
"""
    assert outcome(tmp_path, text) == ""
    assert (tmp_path / "down").exists()


def test_a_background_command_that_ends_badly_fails(tmp_path: Path) -> None:
    text = "<!-- snippet: background -->\n```console\n$ sh -c 'echo no disk; exit 4'\n```\n"
    said = outcome(tmp_path, text)
    assert "(exit code 4)" in said
    assert "no disk" in said


def test_text_is_replaced_before_it_runs(tmp_path: Path) -> None:
    assert outcome(tmp_path, "```python\nprint('there')\n```\n", there="here") == "here\n"


@pytest.mark.parametrize(
    ("pattern", "text", "address"),
    [
        (
            AMQP_ADDRESS,
            'AmqpBroker("amqp://guest:guest@localhost:5672/")',
            "amqp://guest:guest@localhost:5672/",
        ),
        (AMQP_ADDRESS, "--url amqp://localhost --json", "amqp://localhost"),
        (AMQP_ADDRESS, "amqp://me:secret@localhost:5672/%2F\n", "amqp://me:secret@localhost:5672/%2F"),
        (AMQP_ADDRESS, "amqp://guest@rabbitmq.example.org/", None),
        (
            POSTGRES_ADDRESS,
            "'postgresql://fuseline@localhost/fuseline'",
            "postgresql://fuseline@localhost/fuseline",
        ),
        (
            POSTGRES_ADDRESS,
            "postgresql+psycopg://localhost:5432/x y",
            "postgresql+psycopg://localhost:5432/x",
        ),
        (POSTGRES_ADDRESS, "postgresql://db.example.org/fuseline", None),
        (HTTP_PORT, "http://localhost:8000/status", "8000"),
        (HTTP_PORT, "--timeout 80001", None),
    ],
)
def test_the_readers_own_servers_are_recognised(pattern: str, text: str, address: str | None) -> None:
    found = re.search(pattern, text)
    assert (found and found[0]) == address


def test_data_must_parse(tmp_path: Path) -> None:
    assert "page.md:2: not json" in outcome(tmp_path, "```json\n{,}\n```\n")
    assert "page.md:2: not yaml" in outcome(tmp_path, "```yaml\na: [\n```\n")
    assert "page.md:2: not toml" in outcome(tmp_path, "```toml\n=\n```\n")


def test_python_that_is_not_run_must_still_be_python(tmp_path: Path) -> None:
    text = '<!-- snippet: no-run reason="interface" -->\n```python\n{}\n```\n'
    assert outcome(tmp_path, text.format("def run(self) -> int: ...\n1 / 0")) == ""
    assert "SyntaxError" in outcome(tmp_path, text.format("def run(self) -> "))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```\nx\n```\n", r":1: a snippet is opened by a language"),
        ("```pyhton\nx\n```\n", r":1: a snippet is opened by a language .* not 'pyhton'"),
        ("```python no-run\nx\n```\n", r"not 'python no-run'"),
        ("```python\nx\n", r":1: this snippet never ends"),
        ("<!-- snippet: run -->\n```python\nx\n```\n", r":2: 'run' means nothing for python"),
        ("<!-- snippet: no-run -->\n```python\nx\n```\n", r":2: no-run needs a reason out of"),
        ('<!-- snippet: no-run reason="lazy" -->\n```python\nx\n```\n', r"not 'lazy'"),
        ('<!-- snippet: run reason="interface" -->\n```bash\nx\n```\n', r"only no-run has a reason"),
        ("<!-- snippet: run -->\nwords\n```bash\nx\n```\n", r":1: a snippet comment stands right before"),
        ("<!-- snippets run -->\n```bash\nx\n```\n", r":1: not a snippet comment that is known"),
    ],
)
def test_a_snippet_that_says_something_unknown_about_itself_is_an_error(
    tmp_path: Path, text: str, complaint: str
) -> None:
    with pytest.raises(PageError, match=complaint):
        read_page(write(tmp_path, text))


def test_commands_of_a_shell_snippet(tmp_path: Path) -> None:
    page = write(tmp_path, "```bash\n# why\na \\\n  b\n\nc\n```\n```console\n$ d\nout\n$ e\n```\n")
    bash, console = read_page(page)
    assert [(one.line, one.text) for one in commands_in(bash)] == [(3, "a \\\n  b"), (6, "c")]
    assert [(one.text, one.output) for one in commands_in(console)] == [("d", ["out"]), ("e", [])]
