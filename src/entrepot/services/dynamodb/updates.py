"""Update expressions at work: SET, REMOVE, ADD and DELETE on a copy of an item.

All operands are read from the item as it was before the update.
Source: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Expressions.UpdateExpressions.html
"""

from typing import Any

from entrepot.services.dynamodb.binding import Binding, ResolvedPath, get_path
from entrepot.services.dynamodb.errors import ValidationException
from entrepot.services.dynamodb.expressions import Action, Arithmetic, Function, Operand, Parsed, Path, Value, path_text
from entrepot.services.dynamodb.values import AttributeValue, Item, add_numbers, normalise, type_of

_PARAMETER = "UpdateExpression"
_SET_TYPES = ("SS", "NS", "BS")


class Update:
    """An update expression with its placeholders, checked once, to be applied to an item."""

    __slots__ = ("_actions", "_binding")

    def __init__(self, parsed: Parsed, binding: Binding, key_names: tuple[str, ...]) -> None:
        """Raise ValidationException when paths overlap, a key attribute is updated or an operand has a wrong type."""
        self._binding = binding
        self._actions = [(action, binding.path(action.path)) for action in parsed.actions]
        self._check_paths()
        for action, path in self._actions:
            if path[0] in key_names:
                raise ValidationException(
                    f"One or more parameter values were invalid: Cannot update attribute {path[0]}. "
                    "This attribute is part of the key"
                )
            self._check_operand(action)

    def roots(self) -> list[str]:
        """Return the names of the attributes that the update touches."""
        return list(dict.fromkeys(str(path[0]) for _, path in self._actions))

    def paths(self) -> list[ResolvedPath]:
        """Return the paths that the update touches."""
        return [path for _, path in self._actions]

    def apply(self, item: Item) -> Item:
        """Return the item after the update; the one given stays as it is. Raise ValidationException."""
        result = dict(item)
        copied: set[str] = set()
        removals: list[ResolvedPath] = []
        for action, path in self._actions:
            root = str(path[0])
            if len(path) > 1 and root in result and root not in copied:
                result[root] = _copy(result[root])
                copied.add(root)
            match action.section:
                case "SET":
                    assert action.operand is not None
                    _put(result, path, self._evaluate(action.operand, item))
                case "REMOVE":
                    removals.append(path)
                case "ADD":
                    self._add(result, path, self._value(action))
                case _:
                    self._delete(result, path, self._value(action))
        # Indexes of one list are removed from the end, so that they mean what they meant before the update.
        for path in sorted(removals, key=_removal_order):
            _remove(result, path)
        return result

    def _value(self, action: Action) -> AttributeValue:
        assert isinstance(action.operand, Value)
        return self._binding.value(action.operand)

    def _check_paths(self) -> None:
        paths = self.paths()
        for index, one in enumerate(paths):
            for other in paths[:index]:
                shared = min(len(one), len(other))
                if one[:shared] == other[:shared]:
                    problem = "overlap"
                elif _conflict(one, other):
                    problem = "conflict"
                else:
                    continue
                raise ValidationException(
                    f"Invalid {_PARAMETER}: Two document paths {problem} with each other; must remove or rewrite one "
                    f"of these paths; path one: {path_text(other)}, path two: {path_text(one)}"
                )

    def _check_operand(self, action: Action) -> None:
        if action.section in ("ADD", "DELETE"):
            value = self._value(action)
            allowed = (*_SET_TYPES, "N") if action.section == "ADD" else _SET_TYPES
            if type_of(value) not in allowed:
                raise _wrong_type(action.section, value)
        elif action.operand is not None:
            self._check_set_operand(action.operand)

    def _check_set_operand(self, operand: Operand) -> None:
        if isinstance(operand, Arithmetic):
            parts: tuple[Operand, ...] = (operand.left, operand.right)
            name, kind = operand.operator, "N"
        elif isinstance(operand, Function):
            parts = operand.arguments
            name, kind = operand.name, "L" if operand.name == "list_append" else ""
        else:
            return
        for part in parts:
            if kind and isinstance(part, Value) and type_of(self._binding.value(part)) != kind:
                raise _wrong_type(name, self._binding.value(part))
            self._check_set_operand(part)

    def _evaluate(self, operand: Operand, item: Item) -> AttributeValue:
        match operand:
            case Value():
                return self._binding.value(operand)
            case Path():
                value = get_path(item, self._binding.path(operand))
                if value is None:
                    raise ValidationException(
                        "The provided expression refers to an attribute that does not exist in the item"
                    )
                return value
            case Arithmetic():
                left, right = self._evaluate(operand.left, item), self._evaluate(operand.right, item)
                if "N" not in left or "N" not in right:
                    raise _incorrect()
                return {"N": add_numbers(left["N"], right["N"], subtract=operand.operator == "-")}
            case Function(name="if_not_exists"):
                path = operand.arguments[0]
                assert isinstance(path, Path)
                existing = get_path(item, self._binding.path(path))
                return self._evaluate(operand.arguments[1], item) if existing is None else existing
            case Function():
                left, right = (self._evaluate(argument, item) for argument in operand.arguments)
                if "L" not in left or "L" not in right:
                    raise _incorrect()
                return {"L": [*left["L"], *right["L"]]}

    def _add(self, item: Item, path: ResolvedPath, value: AttributeValue) -> None:
        existing, kind = get_path(item, path), type_of(value)
        if existing is None:
            _put(item, path, value)
        elif type_of(existing) != kind:
            raise _incorrect()
        elif kind == "N":
            _put(item, path, {"N": add_numbers(existing["N"], value["N"])})
        else:
            union = list(dict.fromkeys([*existing[kind], *value[kind]]))
            _put(item, path, normalise({kind: union})[0])

    def _delete(self, item: Item, path: ResolvedPath, value: AttributeValue) -> None:
        existing, kind = get_path(item, path), type_of(value)
        if existing is None:
            return
        if type_of(existing) != kind:
            raise _incorrect()
        left = [element for element in existing[kind] if element not in value[kind]]
        if left:
            _put(item, path, {kind: left})
        else:
            _remove(item, path)


def _conflict(one: ResolvedPath, other: ResolvedPath) -> bool:
    """Tell whether one path takes for a map what the other takes for a list."""
    for a, b in zip(one, other, strict=False):
        if a != b:
            return isinstance(a, int) != isinstance(b, int)
    return False


def _removal_order(path: ResolvedPath) -> tuple[Any, ...]:
    return tuple((0, -element, "") if isinstance(element, int) else (1, 0, element) for element in path)


def _wrong_type(operator: str, value: AttributeValue) -> ValidationException:
    names = {"S": "STRING", "N": "NUMBER", "B": "BINARY", "L": "LIST", "M": "MAP", "BOOL": "BOOLEAN", "NULL": "NULL"}
    kind = type_of(value)
    shown = names.get(kind, f"{names.get(kind[0], kind)}_SET") if operator in ("ADD", "DELETE") else kind
    extra = ", typeSet: ALLOWED_FOR_" + operator + "_OPERAND" if operator in ("ADD", "DELETE") else ""
    return ValidationException(
        f"Invalid {_PARAMETER}: Incorrect operand type for operator or function; operator{'' if extra else ' or function'}"
        f": {operator}, operand type: {shown}{extra}"
    )


def _incorrect() -> ValidationException:
    return ValidationException("An operand in the update expression has an incorrect data type")


def _copy(value: AttributeValue) -> AttributeValue:
    """Return a copy whose lists and maps can be changed."""
    if "M" in value:
        return {"M": {name: _copy(member) for name, member in value["M"].items()}}
    if "L" in value:
        return {"L": [_copy(element) for element in value["L"]]}
    return value


def _parent(item: Item, path: ResolvedPath) -> Any:
    """Return the list or map that holds the last element of a path of two or more. Raise ValidationException."""
    parent = get_path(item, path[:-1])
    content = None if parent is None else parent.get("L" if isinstance(path[-1], int) else "M")
    if content is None:
        raise ValidationException("The document path provided in the update expression is invalid for update")
    return content


def _put(item: Item, path: ResolvedPath, value: AttributeValue) -> None:
    if len(path) == 1:
        item[str(path[0])] = value
        return
    parent, last = _parent(item, path), path[-1]
    if isinstance(last, int) and last >= len(parent):
        parent.append(value)
    else:
        parent[last] = value


def _remove(item: Item, path: ResolvedPath) -> None:
    if len(path) == 1:
        item.pop(str(path[0]), None)
        return
    parent, last = _parent(item, path), path[-1]
    if isinstance(last, str):
        parent.pop(last, None)
    elif last < len(parent):
        del parent[last]
