"""The demonstration's numbers are right, or its report would be decoration."""

from __future__ import annotations

import random
import sysconfig
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuseline.examples.stdlib_report.facts import BrokenFile, Facts, Function, PackageFacts, add
from fuseline.examples.stdlib_report.listing import SourceFile, deal, list_files, package_of
from fuseline.examples.stdlib_report.metrics import measure

SOURCE = textwrap.dedent(
    '''\
    """A module.

    # This is no comment: it is inside a string.
    """

    import os, os.path
    from json import dumps
    from . import sibling

    # A comment.
    class Shape:
        """A class."""

        def area(self, sides):
            """With a docstring."""
            if sides and self.known or os:
                return [s for s in sides if s]
            for side in sides:
                while side:
                    side -= 1
            return None

        def _private(self):
            return lambda x: x if x else None


    async def outer():
        def inner():
            try:
                pass
            except ValueError:
                pass
        return inner
    '''
)


def measured(source: str, path: str = "pkg/mod.py") -> tuple[PackageFacts, dict[str, Function]]:
    found = measure(path, source.encode())
    assert not isinstance(found, BrokenFile)
    package, functions = found
    return package, {function.name: function for function in functions}


def test_lines_are_of_one_kind_each() -> None:
    package, _ = measured(SOURCE)
    assert package.name == "pkg"
    assert package.lines == SOURCE.count("\n") == 33
    assert package.comments == 1
    assert package.docstrings == 4 + 1 + 1
    assert package.blank == 6  # and one inside the module's docstring, which is part of that
    assert package.code == 33 - 6 - 1 - 6


def test_functions_count_their_own_decisions() -> None:
    _, functions = measured(SOURCE)
    complexity = {name: function.complexity for name, function in functions.items()}
    assert complexity == {
        # one, and: if, and, or, a comprehension with its if, for, while
        "Shape.area": 8,
        "Shape._private": 2,
        "outer": 1,
        "outer.inner": 2,
    }


def test_what_is_public_counts_as_documentable() -> None:
    package, _ = measured(SOURCE)
    # the module, Shape, area, outer, inner; the first three have docstrings
    assert (package.documentable, package.documented) == (5, 3)
    assert package.classes == 1
    assert package.functions == 4


def test_imports_are_top_level_modules_once_a_file() -> None:
    package, _ = measured(SOURCE)
    assert package.imports == {"json": 1, "os": 1}


def test_a_form_feed_ends_no_line() -> None:
    package, functions = measured("x = 1\n\x0c\ndef f():\n    pass\n")
    assert package.lines == 4
    assert functions["f"].line == 3


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (b"print 'hello'\n", "python 2"),
        (b"# -*- coding: uft-8 -*-\n", "encoding"),
        (b"x = '\xff'\n", "encoding"),
        (b"def f(:\n", "syntax"),
        (b"x = 1\0\n", None),
    ],
)
def test_a_file_that_does_not_parse_says_why(source: bytes, kind: str | None) -> None:
    broken = measure("a.py", source)
    assert isinstance(broken, BrokenFile)
    assert broken.path == "a.py"
    assert broken.error
    # How Python calls a null byte has changed between versions.
    assert kind is None or broken.kind == kind


def test_an_empty_file_is_a_file() -> None:
    package, functions = measured("")
    assert (package.files, package.lines, functions) == (1, 0, {})


parts = st.lists(
    st.builds(
        Facts,
        packages=st.dictionaries(
            st.sampled_from("abc"), st.builds(PackageFacts, name=st.just("a"), files=st.integers(0, 9))
        ).map(lambda found: {name: one.model_copy(update={"name": name}) for name, one in found.items()}),
        hardest=st.lists(
            st.builds(
                Function,
                name=st.sampled_from("fgh"),
                path=st.sampled_from(["p", "q"]),
                line=st.integers(1, 3),
                lines=st.just(1),
                complexity=st.integers(1, 4),
            ),
            max_size=40,
        ),
    ),
    max_size=6,
)


@given(parts, st.integers(0, 6), st.randoms(use_true_random=False))
def test_adding_up_depends_on_no_order_and_no_grouping(
    given_parts: list[Facts], cut: int, chance: random.Random
) -> None:
    """Else the report would depend on which worker was faster, and a run with a killed one would differ."""
    whole = add(given_parts)
    mixed = list(given_parts)
    chance.shuffle(mixed)
    assert add([add(mixed[:cut]), add(mixed[cut:])]) == whole


@given(
    st.lists(st.tuples(st.sampled_from("rs"), st.text("abc/", min_size=1), st.integers(0, 50)), unique=True)
)
def test_every_file_is_dealt_out_once(files: list[tuple[str, str, int]]) -> None:
    given_files = [SourceFile(*one) for one in {one[:2]: one for one in files}.values()]
    shares = deal(given_files, 4)
    assert len(shares) == 4
    dealt = [(root, path) for share in shares for root, paths in share.items() for path in paths]
    assert sorted(dealt) == sorted((one.root, one.path) for one in given_files)


def test_the_standard_library_is_found() -> None:
    found = {file.path for file in list_files([sysconfig.get_path("stdlib")])}
    assert {"json/__init__.py", "asyncio/base_events.py", "ast.py"} <= found
    assert not any("site-packages" in path for path in found)


def test_a_root_that_is_none_is_named() -> None:
    with pytest.raises(FileNotFoundError, match="'no-such-folder' is not a folder"):
        list_files(["no-such-folder"])


@pytest.mark.parametrize(("path", "package"), [("json/decoder.py", "json"), ("ast.py", "ast")])
def test_the_package_of_a_file(path: str, package: str) -> None:
    assert package_of(path) == package
