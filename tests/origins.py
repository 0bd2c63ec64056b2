"""What a module's names stand for: each one's dotted origin, whatever it is called there."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

BUILTINS = frozenset(vars(builtins))


class Origins:
    """The references and calls of a module, by where the thing comes from: ``x`` of ``import os as x`` is ``os``.

    Scopes are not told apart: a name that stands for something anywhere does so everywhere.

    Args:
        source: the module's text.
    """

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self.names: dict[str, str] = {}
        self.imports = set(self._imports())
        while self._follow_assignments():
            pass
        self.references = self.imports | {origin for node in ast.walk(self.tree) if (origin := self.of(node))}
        calls = (self.of(node.func) for node in ast.walk(self.tree) if isinstance(node, ast.Call))
        self.calls = {origin for origin in calls if origin}

    def _imports(self) -> Iterator[str]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    top = alias.name.partition(".")[0]
                    self.names[alias.asname or top] = alias.name if alias.asname else top
                    yield alias.name
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self.names[alias.asname or alias.name] = origin = f"{node.module}.{alias.name}"
                    yield origin

    def _follow_assignments(self) -> bool:
        """Give names that stand for what another name does its origin; return whether there was a new one."""
        before = len(self.names)
        for node in ast.walk(self.tree):
            if isinstance(node, ast.NamedExpr):
                pairs: list[tuple[ast.expr, ast.expr | None]] = [(node.target, node.value)]
            elif isinstance(node, ast.Assign):
                pairs = [(target, node.value) for target in node.targets]
            elif isinstance(node, ast.AnnAssign):
                pairs = [(node.target, node.value)]
            else:
                continue
            for target, value in pairs:
                origin = self.of(value) if value else ""
                if isinstance(target, ast.Name) and origin:
                    self.names.setdefault(target.id, origin)
        return len(self.names) > before

    def of(self, node: ast.AST) -> str:
        """Return the dotted origin of an expression, empty for one that has none."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id, f"builtins.{node.id}" if node.id in BUILTINS else "")
        if isinstance(node, ast.Attribute):
            return self._member(node.value, node.attr)
        if isinstance(node, ast.Call) and self.of(node.func) == "builtins.getattr" and len(node.args) > 1:
            name = node.args[1]
            return self._member(node.args[0], str(name.value) if isinstance(name, ast.Constant) else "*")
        return ""

    def _member(self, owner: ast.AST, name: str) -> str:
        origin = self.of(owner)
        return f"{origin}.{name}" if origin else ""


def under(found: set[str], wanted: set[str]) -> set[str]:
    """Return those of the origins that are one of these, or a part of one; ``os.exec*`` stands for all so begun."""
    exact = {name for name in wanted if not name.endswith("*")}
    begins = tuple([f"{name}." for name in exact] + [name[:-1] for name in wanted - exact])
    return {origin for origin in found if origin in exact or origin.startswith(begins)}
