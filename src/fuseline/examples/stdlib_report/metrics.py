"""What one Python file is like, from its text and its syntax tree. No I/O."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterator

from fuseline.examples.stdlib_report.facts import BrokenFile, Function, PackageFacts
from fuseline.examples.stdlib_report.listing import package_of

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_DECISIONS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.ExceptHandler,
    ast.IfExp,
    ast.Assert,
    ast.match_case,
)
_DOCUMENTED = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def measure(path: str, source: bytes) -> tuple[PackageFacts, list[Function]] | BrokenFile:
    """The file's share of its package's facts, and its functions; a `BrokenFile` when Python cannot parse it."""
    try:
        text = _decode(source)
        with warnings.catch_warnings():
            # Invalid escapes and the like: old sources have them, and they are no errors.
            warnings.simplefilter("ignore")
            tree = ast.parse(text, filename=path)
    except SyntaxError as error:
        return BrokenFile(path=path, line=error.lineno or 0, error=error.msg, kind=_kind_of(error.msg))
    except UnicodeDecodeError as error:
        return BrokenFile(path=path, line=0, error=error.reason, kind="encoding")
    except ValueError as error:
        return BrokenFile(path=path, line=0, error=str(error), kind="other")
    except RecursionError:
        return BrokenFile(path=path, line=0, error="nested too deeply", kind="other")
    return _facts(path, text, tree)


def _decode(source: bytes) -> str:
    """The text, by the rules of PEP 263. Raises `SyntaxError` for an unknown encoding, `UnicodeDecodeError`."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(source).readline)
    return io.TextIOWrapper(io.BytesIO(source), encoding=encoding).read()


def _kind_of(message: str) -> str:
    said = message.lower()
    if "print" in said or "leading zeros" in said or "exec" in said or "<>" in said:
        return "python 2"
    if "encoding" in said or "codec" in said or "utf-8" in said:
        return "encoding"
    return "syntax"


def _facts(path: str, text: str, tree: ast.Module) -> tuple[PackageFacts, list[Function]]:
    # Not splitlines(), which also breaks at form feeds, and then lines have other numbers than the tree says.
    lines = text.removesuffix("\n").split("\n") if text else []
    functions: list[Function] = []
    imports: set[str] = set()
    inside_strings: set[int] = set()
    docstrings: set[int] = set()
    documentable = documented = classes = 0

    # (node, its function or None, the names around it); an explicit stack, since deep trees overrun Python's own.
    stack: list[tuple[ast.AST, list[int], tuple[str, ...]]] = [(tree, [0], ())]
    complexities: list[tuple[ast.FunctionDef | ast.AsyncFunctionDef, list[int], tuple[str, ...]]] = []
    while stack:
        node, complexity, names = stack.pop()
        complexity[0] += _decisions(node)
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str | bytes) and node.end_lineno is not None:
                inside_strings.update(range(node.lineno + 1, node.end_lineno + 1))
            continue
        if isinstance(node, _DOCUMENTED):
            docstring = _docstring_of(node)
            if docstring is not None:
                docstrings.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
            if isinstance(node, ast.Module) or not node.name.startswith("_"):
                documentable += 1
                documented += docstring is not None
        if isinstance(node, Definition):
            names = (*names, node.name)
            classes += isinstance(node, ast.ClassDef)
            if not isinstance(node, ast.ClassDef):
                complexity = [1]
                complexities.append((node, complexity, names))
        imports.update(_imported(node))
        stack += [(child, complexity, names) for child in ast.iter_child_nodes(node)]

    for definition, complexity, names in complexities:
        end = definition.end_lineno or definition.lineno
        functions.append(
            Function(
                name=".".join(names),
                path=path,
                line=definition.lineno,
                lines=end - definition.lineno + 1,
                complexity=complexity[0],
            )
        )
    # A blank line in a docstring is part of the docstring.
    blank = sum(not line.strip() and number not in docstrings for number, line in enumerate(lines, 1))
    comments = sum(
        line.lstrip().startswith("#") and number not in inside_strings for number, line in enumerate(lines, 1)
    )
    return (
        PackageFacts(
            name=package_of(path),
            files=1,
            lines=len(lines),
            blank=blank,
            comments=comments,
            docstrings=len(docstrings),
            functions=len(functions),
            classes=classes,
            complexity=sum(one.complexity for one in functions),
            documentable=documentable,
            documented=documented,
            imports=dict.fromkeys(sorted(imports), 1),
        ),
        functions,
    )


def _decisions(node: ast.AST) -> int:
    """How many ways the node adds to those through its function (McCabe's count, as far as a tree shows it)."""
    if isinstance(node, _DECISIONS):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    return 0


def _docstring_of(node: ast.Module | Definition) -> ast.Constant | None:
    if not node.body or not isinstance(node.body[0], ast.Expr):
        return None
    value = node.body[0].value
    return value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def _imported(node: ast.AST) -> Iterator[str]:
    """The top-level modules that an import statement names; none for a relative import."""
    if isinstance(node, ast.Import):
        yield from (alias.name.partition(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module.partition(".")[0]
