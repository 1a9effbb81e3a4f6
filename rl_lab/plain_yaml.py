"""YAML as plain data, whoever wrote it: mappings, lists, words and numbers, and not too much.

PyYAML's safe loader makes no Python objects, but it still knows dates, sets and binary data, and it
follows aliases however much they repeat (nine lines of them can stand for gigabytes). So a text is
looked through before anything is made of it: only the plain kinds, no key twice, no alias within
itself, and bounds on its length with every alias written out, and on its depth.

Words and numbers are YAML 1.2's: `1e-3` is a number, `no` is a word, and so is `2020-01-01`.
"""

import re
from typing import Any

import yaml

from rl_lab.errors import UserError

MOST_CHARACTERS = 100_000
"""Of a text, and of what it says with every alias written out. PyYAML reads this in a second."""
DEEPEST = 40
"""Lists and mappings within one another."""
LONGEST_NUMBER = 100
"""Digits of a whole number."""

_TAG = "tag:yaml.org,2002:"
_PLAIN = {_TAG + kind for kind in ("null", "bool", "int", "float", "str", "merge", "seq", "map")}

FLOAT = (
    _TAG + "float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+"
        r"|\.\d+(?:[eE][-+]?\d+)?|\.inf|\.nan)$",
        re.IGNORECASE,
    ),
    list("-+0123456789."),
)
"""What PyYAML's `add_implicit_resolver` takes to know a YAML 1.2 float."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with YAML 1.2's words and numbers."""


_KEPT = {_TAG + kind for kind in ("null", "int", "merge")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag in _KEPT]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    _TAG + "bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(*FLOAT)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML into plain data.

    Args:
        text: the YAML.
        where: what to call it in an error: a file name, or a command-line key.

    Raises:
        UserError: the text is no YAML, holds more than plain data, or is too long or too deep.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{where}: longer than {MOST_CHARACTERS:,} characters")
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _Measure(where).of(root, 0)
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise _fault(where, error.problem_mark, str(error.problem)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{where}: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise UserError(f"{where}: lists or mappings are nested too deeply") from None


def _fault(where: str, mark: yaml.Mark | None, problem: str) -> UserError:
    line = f", line {mark.line + 1}" if mark else ""
    return UserError(f"{where}{line}: {problem}")


class _Measure:
    """Looks through the nodes of a text, each once."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._known: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()

    def of(self, node: yaml.Node, depth: int) -> tuple[int, int]:
        """Characters and depth of a node with its aliases written out.

        Raises:
            UserError: it is not plain, or has too many characters or too much depth.
        """
        if id(node) in self._open:
            raise _fault(self._where, node.start_mark, "an alias stands within what it names")
        if id(node) not in self._known:
            self._open.add(id(node))
            self._check_kind(node)
            children = [part for entry in node.value for part in _parts(entry)]
            if isinstance(node, yaml.ScalarNode):
                children = []
            inner = [self.of(child, depth + 1) for child in children]
            length = len(node.value) + sum(characters for characters, _ in inner) + 1
            self._known[id(node)] = length, max((deep + 1 for _, deep in inner), default=0)
            self._open.discard(id(node))
        characters, deep = self._known[id(node)]
        if characters > MOST_CHARACTERS:
            problem = f"longer than {MOST_CHARACTERS:,} characters with its aliases written out"
            raise _fault(self._where, node.start_mark, problem)
        if depth + deep > DEEPEST:
            problem = f"lists or mappings are nested too deeply, beyond {DEEPEST} levels"
            raise _fault(self._where, node.start_mark, problem)
        return characters, deep

    def _check_kind(self, node: yaml.Node) -> None:
        if node.tag not in _PLAIN:
            problem = f"{node.tag.replace(_TAG, '!!')!r} is no plain data; a recipe takes no tags"
            raise _fault(self._where, node.start_mark, problem)
        if node.tag == _TAG + "int" and len(node.value) > LONGEST_NUMBER:
            problem = f"a whole number of more than {LONGEST_NUMBER} digits"
            raise _fault(self._where, node.start_mark, problem)
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    problem = "a key is a word, not a list or a mapping"
                    raise _fault(self._where, key.start_mark, problem)
                if key.value in seen:
                    problem = f"key {key.value!r} is given twice"
                    raise _fault(self._where, key.start_mark, problem)
                seen.add(key.value)
                if key.tag in _PLAIN - {_TAG + "merge"}:
                    key.tag = _TAG + "str"  # `1: x` has the key "1"


def _parts(entry: Any) -> tuple[Any, ...]:
    """The nodes of an entry: a mapping's is a key and a value, a list's one node."""
    return entry if isinstance(entry, tuple) else (entry,)


def key_lines(text: str) -> dict[str, int]:
    """Line number (from 1) of each key of a YAML mapping that `parse_yaml` took, by dotted path."""
    lines: dict[str, int] = {}
    visited: set[int] = set()  # an alias is a node met before

    def visit(node: yaml.Node, prefix: str) -> None:
        if isinstance(node, yaml.MappingNode) and id(node) not in visited:
            visited.add(id(node))
            for key, value in node.value:
                path = f"{prefix}{key.value}"
                lines[path] = key.start_mark.line + 1
                visit(value, f"{path}.")

    root = yaml.compose(text, Loader=_Loader)
    if root is not None:
        visit(root, "")
    return lines
