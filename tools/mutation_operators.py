"""Small faults, one at a time: every way in which a line of a module could have been typed wrong.

Relational operators are replaced by the sufficient set of Kaminski, Ammann and Offutt (2013): who
kills these three kills every other. The rest are the customary ones (arithmetic, logic, constants,
statements), and some for control code: low for high, one mode or status for another, one pass of a
loop, neighbouring arguments exchanged.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import CodeType

# What a comparison becomes; None stands for the constant that the third fault of the set needs.
RELATIONS: Mapping[type[ast.cmpop], tuple[tuple[type[ast.cmpop], ...], bool | None]] = {
    ast.Lt: ((ast.LtE, ast.NotEq), False),
    ast.Gt: ((ast.GtE, ast.NotEq), False),
    ast.LtE: ((ast.Lt, ast.Eq), True),
    ast.GtE: ((ast.Gt, ast.Eq), True),
    ast.Eq: ((ast.LtE, ast.GtE), False),
    ast.NotEq: ((ast.Lt, ast.Gt), True),
    ast.Is: ((ast.IsNot,), None),
    ast.IsNot: ((ast.Is,), None),
    ast.In: ((ast.NotIn,), None),
    ast.NotIn: ((ast.In,), None),
}
ARITHMETIC: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.FloorDiv: ast.Mod,
    ast.BitOr: ast.BitAnd,
}
SIDES = {
    "low": "high",
    "high": "low",
    "operator_low": "operator_high",
    "operator_high": "operator_low",
}
FUNCTIONS = {"min": "max", "max": "min", "all": "any", "any": "all"}
# Of an enumeration with more members than this, only the first of each severity is tried.
MEMBERS = 8
FEW = ("GOOD", "BAD", "UNCERTAIN_LAST_USABLE")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one fault.

    Attributes:
        scope: function or class; before, after: the statement, in normal form, without its body.
        line: where it stands now; only for people, never to recognize a mutant by.
        code: the module, compiled.
    """

    scope: str
    before: str
    after: str
    line: int
    code: CodeType

    @property
    def key(self) -> tuple[str, str, str]:
        return self.scope, self.before, self.after


def mutants(source: str, path: str, members: Mapping[str, tuple[str, ...]]) -> list[Mutant]:
    """Every mutant of a module; `members` are the names of each enumeration that it uses."""
    tree = ast.parse(source)
    found: list[Mutant] = []
    seen: dict[tuple[str, str, str], list[CodeType]] = {}
    for fault in _Walk({**members, **_own_members(tree)}).statements(tree, "module"):
        before = _head(fault.at)
        fault.put(fault.bad)
        after = fault.label or _head(fault.at)
        code = compile(ast.fix_missing_locations(tree), path, "exec")
        fault.put(fault.good)
        if after == before:
            continue
        alike = seen.setdefault((fault.scope, before, after), [])
        if code in alike:
            continue
        alike.append(code)
        if len(alike) > 1:  # The same statement twice in a function: told apart by their order.
            after += f"  # {len(alike)}"
        found.append(Mutant(fault.scope, before, after, fault.at.lineno, code))
    return found


@dataclass(frozen=True, slots=True)
class _Fault:
    """Put `bad` where `good` stands in the syntax tree."""

    scope: str
    at: ast.stmt
    parent: ast.AST
    field: str
    index: int | None
    good: object
    bad: object
    label: str = ""

    def put(self, node: object) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


class _Walk:
    """Goes through a module and names the faults; annotations, docstrings and imports are none."""

    def __init__(self, members: Mapping[str, tuple[str, ...]]) -> None:
        self.members = members

    def statements(self, parent: ast.AST, scope: str) -> Iterator[_Fault]:
        for field in ("body", "orelse", "finalbody", "cases"):
            nodes: list[ast.stmt | ast.match_case] = getattr(parent, field, [])
            for index, node in enumerate(nodes):
                if isinstance(node, ast.match_case):
                    yield from self._case(parent, index, node, scope)
                elif not isinstance(node, ast.Import | ast.ImportFrom) and not _is_docstring(node):
                    yield from self._statement(parent, field, index, node, scope)

    def _statement(
        self, parent: ast.AST, field: str, index: int, node: ast.stmt, scope: str
    ) -> Iterator[_Fault]:
        def instead(bad: object, label: str) -> _Fault:
            return _Fault(scope, node, parent, field, index, node, bad, label)

        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            inner = node.name if scope == "module" else f"{scope}.{node.name}"
            yield from self._parts(node, node, inner)
            yield from self.statements(node, inner)
            return
        match node:
            case ast.AnnAssign(value=ast.expr() as value) if isinstance(parent, ast.ClassDef):
                yield _Fault(scope, node, node, "value", None, value, None)
            case ast.AnnAssign(value=None) | ast.Pass():
                return
            case ast.Return(value=ast.expr() as value) if not _is_none(value):
                yield _Fault(scope, node, node, "value", None, value, ast.Constant(None))
            case ast.Continue():
                yield instead(ast.Break(), "break")
            case ast.Break():
                yield instead(ast.Continue(), "continue")
            case ast.For() | ast.While():
                yield _Fault(
                    scope, node, node, "body", None, node.body, [*node.body, ast.Break()],
                    f"{_head(node)}  # one pass",
                )  # fmt: skip
            case ast.AugAssign(op=op):
                for bad in _arithmetic(op):
                    yield _Fault(scope, node, node, "op", None, op, bad)
                yield instead(ast.Assign([node.target], node.value, lineno=0), f"{_text(node)} =")
            case _:
                pass
        # An `if` without `else` that is left out is one that is never true: tried there.
        if not isinstance(node, ast.If) or node.orelse:
            yield instead(ast.Pass(), "pass")
        yield from self._parts(node, node, scope)
        yield from self.statements(node, scope)

    def _case(
        self, parent: ast.AST, index: int, node: ast.match_case, scope: str
    ) -> Iterator[_Fault]:
        cases: list[ast.match_case] = getattr(parent, "cases")  # noqa: B009  (of ast.Match)
        # A case is no statement: the first one of its body lends line and text.
        at = _CaseHead(node)
        if len(cases) > 1:
            rest = [*cases[:index], *cases[index + 1 :]]
            yield _Fault(scope, at, parent, "cases", None, cases, rest, "no such case")
        yield from self._parts(node, at, scope)
        yield from self.statements(node, scope)

    def _parts(self, node: ast.AST, at: ast.stmt, scope: str) -> Iterator[_Fault]:
        """Faults in the expressions under a node, its statements aside."""
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "bases", "format_spec"):
                continue
            children = value if isinstance(value, list) else [value]
            for number, child in enumerate(children):
                if not isinstance(child, ast.AST) or isinstance(child, ast.stmt | ast.match_case):
                    continue
                index = number if isinstance(value, list) else None
                for bad in self._replacements(node, field, child):
                    yield _Fault(scope, at, node, field, index, child, bad)
                if not _is_declaration(child):
                    yield from self._parts(child, at, scope)
        yield from self._omissions(node, at, scope)

    def _omissions(self, node: ast.AST, at: ast.stmt, scope: str) -> Iterator[_Fault]:
        """One element, entry or keyword left out; neighbouring arguments exchanged."""
        lists: Mapping[type[ast.AST], tuple[str, int]] = {
            ast.Tuple: ("elts", 2),
            ast.Call: ("keywords", 1),
        }
        if type(node) in lists and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            field, least = lists[type(node)]
            items = getattr(node, field)
            for index in range(len(items) if len(items) >= least else 0):
                if field == "keywords" and isinstance(items[index].value, ast.Constant):
                    continue  # Left out or turned round is the same for a flag.
                rest = [*items[:index], *items[index + 1 :]]
                yield _Fault(scope, at, node, field, None, items, rest)
        if isinstance(node, ast.Dict):
            for index in range(len(node.keys)):
                keys = [*node.keys[:index], *node.keys[index + 1 :]]
                values = [*node.values[:index], *node.values[index + 1 :]]
                good = (node.keys, node.values)
                yield _DictFault(scope, at, node, "", None, good, (keys, values))
        if isinstance(node, ast.Call) and _called(node) not in FUNCTIONS:
            for index in range(len(node.args) - 1):
                args = list(node.args)
                args[index : index + 2] = args[index + 1], args[index]
                yield _Fault(scope, at, node, "args", None, node.args, args)

    def _replacements(self, parent: ast.AST, field: str, node: ast.AST) -> Iterator[ast.AST]:
        if isinstance(node, ast.expr) and (field in ("test", "guard") or _is_filter(parent, field)):
            yield from (ast.Constant(True), ast.Constant(False))
            if not isinstance(node, ast.UnaryOp):
                yield ast.UnaryOp(ast.Not(), node)
        match node:
            case ast.Compare():
                yield from _relations(node)
            case ast.BoolOp():
                other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
                yield ast.BoolOp(other, node.values)
                for index in range(len(node.values)):
                    rest = [*node.values[:index], *node.values[index + 1 :]]
                    yield rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
            case ast.MatchOr():
                for index in range(len(node.patterns)):
                    patterns = [*node.patterns[:index], *node.patterns[index + 1 :]]
                    yield patterns[0] if len(patterns) == 1 else ast.MatchOr(patterns)
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                yield node.operand
            case ast.BinOp():
                yield from (ast.BinOp(node.left, op, node.right) for op in _arithmetic(node.op))
                yield from (node.left, node.right)
            case ast.Constant() if not isinstance(parent, ast.JoinedStr):
                yield from _constants(parent, node)
            case ast.JoinedStr():
                yield ast.Constant("")
            case ast.Call():
                yield from _calls(node)
            case ast.Attribute(value=ast.Name(id=owner), attr=attr) if owner in self.members:
                names = self.members[owner]
                for name in names if len(names) <= MEMBERS else FEW:
                    if name != attr:
                        yield ast.Attribute(node.value, name, node.ctx)
            case ast.Attribute(attr=attr, ctx=ast.Load()) if attr in SIDES:
                yield ast.Attribute(node.value, SIDES[attr], node.ctx)
            case ast.Name(id=name, ctx=ast.Load()) if name in SIDES:
                yield ast.Name(SIDES[name], node.ctx)
            case _:
                pass


class _DictFault(_Fault):
    """Keys and values of a dictionary go together."""

    __slots__ = ()

    def put(self, node: object) -> None:
        self.parent.keys, self.parent.values = node  # type: ignore[attr-defined, misc]


class _CaseHead(ast.stmt):
    """Lends a case of a match statement the looks of a statement."""

    def __init__(self, case: ast.match_case) -> None:
        super().__init__()
        self.case, self.lineno = case, case.body[0].lineno - 1


def _relations(node: ast.Compare) -> Iterator[ast.expr]:
    links = list(zip([node.left, *node.comparators], node.ops, node.comparators, strict=False))
    for index, (_, op, right) in enumerate(links):
        bad_ops, constant = RELATIONS[type(op)]
        text = isinstance(right, ast.Constant) and isinstance(right.value, str)
        if text and isinstance(op, ast.Eq | ast.NotEq):  # Names have no order that would matter.
            bad_ops = (ast.NotEq if isinstance(op, ast.Eq) else ast.Eq,)
        for bad in bad_ops:
            ops = [*node.ops[:index], bad(), *node.ops[index + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)
        if constant is None:
            continue
        if len(links) == 1:
            yield ast.Constant(constant)
        elif constant:  # A link of a chain that is always true: the others are what is left.
            rest = [
                ast.Compare(left, [other], [end])
                for place, (left, other, end) in enumerate(links)
                if place != index
            ]
            yield rest[0] if len(rest) == 1 else ast.BoolOp(ast.And(), list[ast.expr](rest))


def _arithmetic(op: ast.operator) -> Iterator[ast.operator]:
    if type(op) in ARITHMETIC:
        yield ARITHMETIC[type(op)]()


def _constants(parent: ast.AST, node: ast.Constant) -> Iterator[ast.expr]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield from (ast.Constant(v) for v in dict.fromkeys((value + 1, value - 1, 0)) if v != value)
    elif isinstance(value, str):
        yield ast.Constant("" if value else "?")
    elif value is None and not isinstance(parent, ast.Compare | ast.Return):
        yield ast.Constant(0)


def _calls(node: ast.Call) -> Iterator[ast.expr]:
    name = _called(node)
    if name in FUNCTIONS:
        yield ast.Call(ast.Name(FUNCTIONS[name], ast.Load()), node.args, node.keywords)
    if name in ("isfinite", "isinstance"):
        yield from (ast.Constant(True), ast.Constant(False))
    elif name in ("min", "max") or (name and len(node.args) == 1 and not node.keywords):
        yield from (arg for arg in node.args if not isinstance(arg, ast.GeneratorExp))


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _own_members(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Members of the enumerations that the module itself defines."""
    return {
        node.name: tuple(
            item.targets[0].id
            for item in node.body
            if isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name)
        )
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).endswith("Enum") for base in node.bases)
    }


def _head(node: ast.stmt) -> str:
    """A statement in normal form, without the statements inside it."""
    if isinstance(node, _CaseHead):
        case = copy.copy(node.case)
        case.body = [ast.Pass()]
        return ast.unparse(case).strip().removesuffix("pass").strip()
    return _text(node)


def _text(node: ast.stmt) -> str:
    if not hasattr(node, "body") and not isinstance(node, ast.Match):
        return ast.unparse(node)
    short = copy.copy(node)
    for field, kept in (("body", [ast.Pass()]), ("orelse", []), ("cases", [])):
        if hasattr(short, field):
            setattr(short, field, kept)
    return ast.unparse(short).strip().removesuffix("pass").strip()


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_filter(parent: ast.AST, field: str) -> bool:
    return isinstance(parent, ast.comprehension) and field == "ifs"


def _is_declaration(node: ast.AST) -> bool:
    """A type such as `Literal["on", "off"]`, which only the type checker reads."""
    if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)):
        return False
    return node.value.id in ("Literal", "Mapping", "dict", "list", "tuple")
