"""Mutants of a module: copies of its syntax tree with one small change each."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}

Change = Callable[[ast.AST], ast.AST]


@dataclass(frozen=True)
class Mutant:
    """One change of a module.

    Parameters
    ----------
    function
        Qualified name of the function or class that contains it; "" for the module itself.
    line
        Line of the changed expression.
    before, after
        Source of the changed expression or statement.
    in_body
        Whether it is in the body of a function, outside of default values and decorators.
    index
        Position of the changed node in the order of `ast.walk`.
    change
        Returns the node that replaces a copy of the changed node.
    """

    function: str
    line: int
    before: str
    after: str
    in_body: bool
    index: int
    change: Change

    def apply(self, tree: ast.Module) -> ast.Module:
        """Return a mutated copy of the tree from which the mutant was made."""
        mutated = copy.deepcopy(tree)
        target = list(ast.walk(mutated))[self.index]
        replacement = self.change(target)
        _Replacer(target, replacement).visit(mutated)
        return ast.fix_missing_locations(mutated)


class _Replacer(ast.NodeTransformer):
    """Replaces one node."""

    def __init__(self, target: ast.AST, replacement: ast.AST) -> None:
        self.target, self.replacement = target, replacement

    def visit(self, node: ast.AST) -> ast.AST:
        return self.replacement if node is self.target else self.generic_visit(node)


def find_mutants(tree: ast.Module) -> list[Mutant]:
    """Return all mutants of a module.

    Left out are annotations, decorators, imports, docstrings, messages (what is raised or formatted into
    text), and the values of ``__all__``, because changing them does not change what the code does.
    """
    names, skipped, bodies = _qualified_names(tree), _skipped(tree), _function_bodies(tree)
    mutants = []
    for index, node in enumerate(ast.walk(tree)):
        if node in skipped:
            continue
        for change in _changes(node):
            after = change(copy.deepcopy(node))
            line = getattr(node, "lineno", 0)
            before, after_text = _source(node), _source(after)
            mutants.append(
                Mutant(names.get(node, ""), line, before, after_text, node in bodies, index, change)
            )
    return mutants


def _function_bodies(tree: ast.Module) -> set[ast.AST]:
    """Return the nodes in the bodies of functions."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {node for function in functions for statement in function.body for node in ast.walk(statement)}


def _source(node: ast.AST) -> str:
    """Return the source of a node; of a statement with a body, its condition."""
    if isinstance(node, (ast.If, ast.While)):
        return f"{type(node).__name__.lower()} {ast.unparse(node.test)}"
    return ast.unparse(node)


def _qualified_names(tree: ast.Module) -> dict[ast.AST, str]:
    """Return the qualified name of the function or class around each node."""
    names: dict[ast.AST, str] = {}

    def visit(node: ast.AST, name: str) -> None:
        names[node] = name
        for child in ast.iter_child_nodes(node):
            scope = isinstance(child, (ast.FunctionDef, ast.ClassDef))
            visit(child, f"{name}.{child.name}".lstrip(".") if scope else name)  # type: ignore[attr-defined]

    visit(tree, "")
    return names


def _skipped(tree: ast.Module) -> set[ast.AST]:
    """Return the nodes that are not mutated; see `find_mutants`."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(tree):
        for part in _parts_to_skip(node):
            skipped.update(ast.walk(part))
    return skipped


def _parts_to_skip(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the parts of a node that are not mutated."""
    if _is_skipped(node):
        yield node
    elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        yield from node.decorator_list
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            yield node.returns
        if any(isinstance(one, ast.Name) and one.id == "overload" for one in node.decorator_list):
            yield node
    elif isinstance(node, (ast.arg, ast.AnnAssign)) and node.annotation is not None:
        yield node.annotation


def _is_skipped(node: ast.AST) -> bool:
    """Return True for a statement, or a formatted text, that is not mutated at all."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant)  # a docstring
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.Assign):
        return _is_alias(node)
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.Raise, ast.JoinedStr, ast.Assert))


def _is_alias(node: ast.Assign) -> bool:
    """Return True for ``__all__`` and for a type alias such as ``Floats = NDArray[np.float64]``."""
    targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
    is_type = isinstance(node.value, (ast.Subscript, ast.BinOp)) and targets[:1] == [
        name for name in targets[:1] if name[:1].isupper() and not name.isupper()
    ]
    return targets == ["__all__"] or (bool(targets) and is_type)


def _changes(node: ast.AST) -> Iterator[Change]:
    """Yield the changes of one node."""
    if isinstance(node, ast.Compare):
        yield from _comparison_changes(node)
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in ARITHMETIC:
        yield lambda copied: _set(copied, op=ARITHMETIC[type(copied.op)]())
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield lambda copied: copied.operand
    elif isinstance(node, ast.BoolOp):
        yield lambda copied: _set(copied, op=ast.Or() if isinstance(copied.op, ast.And) else ast.And())
    elif isinstance(node, (ast.If, ast.IfExp, ast.While)) and not _is_negated_otherwise(node.test):
        yield lambda copied: _set(copied, test=ast.UnaryOp(ast.Not(), copied.test))
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield lambda copied: _set(copied, value=ast.Constant(None))
    elif isinstance(node, ast.Constant):
        yield from _constant_changes(node)
    elif isinstance(node, ast.Call):
        yield from _call_changes(node)


def _comparison_changes(node: ast.Compare) -> Iterator[Change]:
    for position in range(len(node.ops)):

        def change(copied: ast.AST, position: int = position) -> ast.AST:
            assert isinstance(copied, ast.Compare)
            copied.ops[position] = COMPARISONS[type(copied.ops[position])]()
            return copied

        yield change


def _constant_changes(node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield lambda copied: _set(copied, value=not copied.value)
    elif isinstance(value, (int, float)):
        yield lambda copied: _set(copied, value=copied.value + 1)
    elif isinstance(value, str):
        yield lambda copied: _set(copied, value=f"{copied.value}X")


def _call_changes(node: ast.Call) -> Iterator[Change]:
    """Yield the removal of each keyword argument, and of the last of several positional arguments."""
    for position in range(len(node.keywords)):

        def change(copied: ast.AST, position: int = position) -> ast.AST:
            assert isinstance(copied, ast.Call)
            del copied.keywords[position]
            return copied

        yield change
    if len(node.args) > 1:
        yield lambda copied: _set(copied, args=copied.args[:-1])


def _set(node: ast.AST, **fields: object) -> ast.AST:
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def _is_negated_otherwise(test: ast.expr) -> bool:
    """Return True if another mutant negates this condition."""
    if isinstance(test, ast.UnaryOp):
        return isinstance(test.op, ast.Not)
    inverted = (ast.Eq, ast.NotEq, ast.In, ast.NotIn, ast.Is, ast.IsNot)
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], inverted)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
