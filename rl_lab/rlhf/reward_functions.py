"""Reward functions: a rule that comes with the lab, or the user's own in a Python file."""

import ast
import importlib.util
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reward_models import REWARD_MODELS
from rl_lab.errors import UserError, nearest
from rl_lab.files import is_file

Function = Callable[..., Any]


def function_of(name: str, key: str) -> Function:
    """Find a rule by name, or a function in a Python file, which is run.

    Raises:
        UserError: there is no such rule, file or function; or the file fails. Whatever the
            function raises later becomes one too.
    """
    check_function(name, key)
    if name in REWARD_MODELS:
        return REWARD_MODELS[name]
    file, _, attribute = name.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)

    def ask(*arguments: Any) -> Any:
        return getattr(module, attribute)(*arguments)

    _blaming(file, key, spec.loader.exec_module)(module)
    if not callable(getattr(module, attribute)):
        raise UserError(f"{key} = {name!r}: {attribute!r} of {file} is no function")
    return _blaming(file, key, ask)


def _blaming(file: str, key: str, call: Function) -> Function:
    """Make an error in the user's file a sentence that names its line.

    Args:
        file: whose line is named, the innermost.
        key: of the recipe, that names the file.
        call: what runs code of that file.
    """

    def called(*arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            lines = [
                frame.lineno for frame in frames if Path(frame.filename) == Path(file).absolute()
            ]
            where = f"{file}, line {lines[-1]}" if lines else file
            raise UserError(f"{key}: {where}: {type(error).__name__}: {error}") from error

    return called


def check_function(name: str, key: str) -> None:
    """See whether `function_of` will find it; the file is read, not run.

    Raises:
        UserError: there is no such rule, file or function, or the file is no Python.
    """
    if name in REWARD_MODELS:
        return
    file, colon, attribute = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        hint = nearest(name, REWARD_MODELS) or f" ({', '.join(REWARD_MODELS)})"
        raise UserError(f"{key} = {name!r}: neither a rule{hint} nor FILE.py:NAME")
    if not is_file(Path(file)):
        raise UserError(f"{key} = {name!r}: there is no file {file!r}")
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{key} = {name!r}: {file} is no Python: {error}") from None
    functions = [name for node in tree.body for name in _names(node)]
    if attribute not in functions:
        raise UserError(
            f"{key} = {name!r}: {file} has no function {attribute!r}{nearest(attribute, functions)}"
        )


def _names(node: ast.stmt) -> list[str]:
    """What a statement of a module may name a function: by def, assignment or import."""
    match node:
        case ast.FunctionDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return [alias.asname or alias.name for alias in names]
    return []
