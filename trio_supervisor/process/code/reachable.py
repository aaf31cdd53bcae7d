"""Find the statements of a module that a function can reach. Pure.

Several services may be declared in one file. Each runs its function, the definitions
that this uses by name, directly or indirectly, and the statements that are executed for
their effect at import. If names are not sufficient, the whole module is reachable.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from typing import Final, TypeAlias

from attrs import frozen

Node: TypeAlias = ast.stmt | ast.expr | ast.alias

# With these, a name may be used without occurring in the source.
_DYNAMIC: Final = frozenset({"eval", "exec", "globals", "locals", "vars", "compile"})
# Decorators and base classes without side effects such as a registration.
_HARMLESS: Final = frozenset(
    {
        "ABC",
        "BaseException",
        "Enum",
        "Exception",
        "Generic",
        "IntEnum",
        "NamedTuple",
        "Protocol",
        "StrEnum",
        "TypedDict",
        "asynccontextmanager",
        "cache",
        "classmethod",
        "contextmanager",
        "dataclass",
        "define",
        "dict",
        "frozen",
        "list",
        "lru_cache",
        "mutable",
        "object",
        "override",
        "property",
        "staticmethod",
        "total_ordering",
        "tuple",
        "wraps",
    }
)
_FUNCTIONS: Final = (ast.FunctionDef, ast.AsyncFunctionDef)
_CALLS: Final = (ast.Call, ast.Await, ast.Yield, ast.NamedExpr, ast.Subscript)


def reachable(
    tree: ast.Module, name: str, declarations: Collection[str] = ()
) -> list[ast.stmt]:
    """Return the statements of *tree* that the function *name* can reach, in order.

    Return all of them if *name* is not defined there, or if the code looks names up
    dynamically.

    Args:
        declarations: Names of applications, services and similar objects, which are
            compared in other ways: a statement that binds only these counts only if
            the function itself uses the name.
    """
    statements = [_Statement.of(node) for node in tree.body]
    if not any(name in s.binds and s.is_definition for s in statements):
        return list(tree.body)
    used = frozenset(name for statement in statements for name in statement.uses)
    left = [
        statement
        for statement in statements
        if name in statement.binds or statement.is_run_for_effect(used, declarations)
    ]
    found: set[int] = set()
    while left:
        statement = left.pop()
        if id(statement.node) in found:
            continue
        found.add(id(statement.node))
        if statement.is_dynamic:
            return list(tree.body)
        left += [other for other in statements if other.binds & statement.uses]
    return [node for node in tree.body if id(node) in found]


@frozen(eq=False)
class _Statement:
    node: ast.stmt
    binds: frozenset[str]
    """Names of the module that it binds."""
    uses: frozenset[str]
    is_definition: bool
    has_effect: bool
    """Whether it does more than binding names."""
    may_have_effect: bool
    """Whether it is assumed to, if no code uses the names that it binds."""
    is_dynamic: bool

    def is_run_for_effect(
        self, used: frozenset[str], declarations: Collection[str]
    ) -> bool:
        if self.has_effect or not self.may_have_effect:
            return self.has_effect
        return not self.binds & used and not self.binds <= set(declarations)

    @classmethod
    def of(cls, node: ast.stmt) -> _Statement:
        if _never_runs(node):
            return cls(node, frozenset(), frozenset(), False, False, False, False)
        uses = frozenset(_names(node))
        is_import = isinstance(node, (ast.Import, ast.ImportFrom))
        is_simple = _binds_names_only(node)
        is_definition = isinstance(node, (*_FUNCTIONS, ast.ClassDef))
        binds = frozenset(_bound(node))
        has_effect = not (is_import or is_simple or is_definition) or (
            is_definition and _registers(node)
        )
        return cls(
            node,
            binds,
            uses,
            is_definition,
            has_effect,
            is_import or (is_simple and _calls(node)),
            bool(uses & _DYNAMIC) or "*" in binds,
        )


def _never_runs(node: ast.stmt) -> bool:
    """Return whether *node* has no effect in a worker: a docstring, a main guard."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Pass():
            return True
        case ast.If(
            test=ast.Compare(
                left=ast.Name(id="__name__"), comparators=[ast.Constant("__main__")]
            ),
            orelse=[],
        ):
            return True
    return False


def _names(node: ast.AST) -> Iterator[str]:
    """Yield each name that *node* reads, and strings that may be type annotations."""
    for part in ast.walk(node):
        match part:
            case ast.Name(id=name, ctx=ast.Load() | ast.Del()):
                yield name
            case ast.Global(names=names) | ast.Nonlocal(names=names):
                yield from names
            case ast.Constant(value=str(text)) if text.isidentifier():
                yield text


def _binds_names_only(node: ast.stmt) -> bool:
    match node:
        case ast.AnnAssign(target=ast.Name()):
            return True
        case ast.Assign(targets=targets):
            parts = [part for target in targets for part in ast.walk(target)]
            # A subscript or an attribute modifies an object that has another name.
            return not any(isinstance(p, (ast.Subscript, ast.Attribute)) for p in parts)
    return False


def _bound(node: ast.stmt) -> Iterator[str]:
    match node:
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            for alias in names:
                yield (alias.asname or alias.name).partition(".")[0]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            yield name
        case ast.ClassDef(name=name):
            yield name
        case _:
            for part in ast.walk(node):
                match part:
                    case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
                        yield name
                    case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                        yield name
                    case ast.ClassDef(name=name) | ast.alias(asname=str(name)):
                        yield name
                    case ast.alias(name=name):
                        yield name.partition(".")[0]


def _registers(node: ast.stmt) -> bool:
    """Return whether a definition may register itself elsewhere."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return not _are_harmless(node.decorator_list)
        case ast.ClassDef():
            heads = [*node.decorator_list, *node.bases]
            return bool(node.keywords) or not _are_harmless(heads)
    return False


def _are_harmless(heads: Iterable[ast.expr]) -> bool:
    return all(_last_name(head) in _HARMLESS for head in heads)


def _last_name(head: ast.expr) -> str:
    match head:
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return _last_name(inner)
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _calls(node: ast.stmt) -> bool:
    return any(isinstance(part, _CALLS) for part in ast.walk(node))
