"""`module:attribute` or `path/to/file.py:attribute` -> workflows. Each part that can be wrong has its own message."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from fuseline.errors import LoadError
from fuseline.workflow import Workflow


def load(target: str) -> list[Workflow]:
    """The workflow or workflows (a list or tuple) that `target` names. The current directory is importable.

    Raises `LoadError`: the module does not exist; something that it imports or does fails (the cause is the error);
    it has no such attribute (with the names that are close); the attribute is no `Workflow`.
    """
    where, colon, attribute = target.rpartition(":")
    if not colon or not where or not attribute:
        raise LoadError(f"{target!r}: expected module:attribute or path/to/file.py:attribute")
    if where.endswith(".py"):
        module = _load_file(where, target)
    else:
        module = _load_module(where, target)
    value = _attribute(module, attribute, target)
    workflows = list(value) if isinstance(value, list | tuple) else [value]
    if not workflows:
        raise LoadError(f"{target!r}: {attribute} is empty")
    for one in workflows:
        if not isinstance(one, Workflow):
            raise LoadError(f"{target!r}: {attribute} is {_described(one)}, not a Workflow")
    return workflows


def _load_module(name: str, target: str) -> ModuleType:
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path:
        sys.path.insert(0, here)
    if name in sys.modules:
        return sys.modules[name]
    # A file written a moment ago is otherwise missing until the directory's cached listing expires.
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The module itself, or a package that it is in; any other name is an import inside it.
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            hint = f"; did you mean {name}.py, a file?" if Path(f"{name}.py").is_file() else ""
            raise LoadError(f"{target!r}: there is no module {error.name!r}{hint}") from None
        raise _broken(target, name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(target, name, error) from error


def _load_file(path: str, target: str) -> ModuleType:
    file = Path(path).resolve()
    if not file.is_file():
        raise LoadError(f"{target!r}: there is no file {path!r}")
    for known in list(sys.modules.values()):
        # Loading it twice would make two workflows of one.
        if type(known) is ModuleType and known.__dict__.get("__file__") == str(file):
            return known
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    name = f"_fuseline_file_{digest}_{file.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise LoadError(f"{target!r}: {path!r} cannot be loaded as Python")
    # As for a script: modules beside it can be imported.
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _broken(target, path, error) from error
    return module


def _attribute(module: ModuleType, path: str, target: str) -> Any:
    value: Any = module
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            names: Sequence[str] = [name for name in dir(value) if not name.startswith("_")]
            workflows = [name for name in names if isinstance(getattr(value, name, None), Workflow)]
            close = difflib.get_close_matches(part, names, n=3, cutoff=0.5)
            hint = ""
            if close:
                hint = f"; did you mean {' or '.join(close)}?"
            elif workflows:
                hint = f"; its workflows are {', '.join(workflows)}"
            owner = "the module" if value is module else type(value).__name__
            raise LoadError(f"{target!r}: {owner} has no attribute {part!r}{hint}") from None
    return value


def _broken(target: str, what: str, error: BaseException) -> LoadError:
    said = f": {error}" if str(error) else ""
    return LoadError(f"{target!r}: importing {what} failed: {type(error).__name__}{said}")


def _described(value: Any) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"
