"""From a query's tree to one SQL statement over the log store.

Commands that only name or test things add to the layer at hand, so that what nobody asks for is never computed; `stats`,
`dedup`, `unnest`, `pattern`, and whatever follows a `limit`, begin a new layer over the rows so far (a common table
expression). Every text of the query travels as a bound parameter.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, assert_never

import re2

from entrepot.services.logs.insights import literals, syntax
from entrepot.services.logs.insights.errors import MalformedQueryError
from entrepot.services.logs.insights.functions import AGGREGATES, SCALARS, Column
from entrepot.services.logs.insights.scalars import LAMBDA_REPORT
from entrepot.services.logs.insights.syntax import Expression, Item, Span

ROWS_LIMIT = 10_000
"""A query answers with at most this many rows. AWS's limit."""

STATS_LIMIT = 2
"""A query has at most so many `stats` commands. AWS's limit."""

REGEX_LIMIT_BYTES = 8 * 1024 * 1024
"""What a compiled regular expression may take in memory."""

_RAW = ("ts", "m", "stream", "log", "ingested", "seq", "sid")
"""What every event carries through the layers before `stats`."""

_EVENTS = {
    "ts": "e.timestamp_ms",
    "m": "e.message",
    "stream": "s.name",
    "log": ":log_prefix || (SELECT name FROM log_group g WHERE g.group_id = s.group_id)",
    "ingested": "e.timestamp_ms + e.ingested_after_ms",
    "seq": "e.seq",
    "sid": "e.stream_id",
}
_SOURCE = (
    "log_stream s CROSS JOIN log_event e ON e.stream_id = s.stream_id AND e.timestamp_ms BETWEEN :since_ms AND :until_ms "
    "WHERE s.group_id IN (SELECT value FROM json_each(:groups)) "
    "AND s.last_event_at_ms >= :since_ms AND s.first_event_at_ms <= :until_ms"
)
_PERIOD_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A query that can run.

    `sql` takes :groups (their ids, a JSON list), :log_prefix (what @log begins with), :since_ms and :until_ms (both
    inclusive), and `parameters`. Its rows have a value for each of `columns`, then the number of events that matched, then
    stream, time and sequence of the event (NULL without an event of its own).
    """

    sql: str
    parameters: dict[str, str | int | float]
    columns: tuple[tuple[str, str], ...]
    regexes: tuple[Any, ...]
    has_events: bool


def compile_query(text: str, *, now_ms: int, limit: int = ROWS_LIMIT) -> Compiled:
    """Return the statement of a query string; MalformedQueryError says what is wrong at which character."""
    from entrepot.services.logs.insights.parse import parse_query  # its library is loaded with the first query

    commands = parse_query(text)
    compiler = _Compiler(text, now_ms)
    for command in commands:
        compiler.add(command)
    return compiler.finish(limit)


class _Compiler:
    """The statement as it grows."""

    def __init__(self, text: str, now_ms: int) -> None:
        self._text = text
        self._now_ms = now_ms
        self._parameters: dict[str, str | int | float] = {}
        self._regexes: list[Any] = []
        self._layers: list[str] = []
        self._source = _SOURCE
        self._conditions: list[str] = []
        self._events: dict[str, str] | None = dict(_EVENTS)
        self._scope: dict[str, Column] = {}
        self._order: str | None = None
        self._limit: int | None = None
        self._shown: list[str] = []
        self._display: list[str] | None = None
        self._stats = 0
        self._add: dict[type, Callable[[Any], None]] = {
            syntax.Fields: self._fields,
            syntax.Display: self._only,
            syntax.Filter: self._filter,
            syntax.Parse: self._parse,
            syntax.Stats: self._aggregate,
            syntax.Sort: self._sort,
            syntax.Limit: self._cut,
            syntax.Dedup: self._dedup,
            syntax.Unnest: self._unnest,
            syntax.Pattern: self._pattern,
        }

    def add(self, command: syntax.Command) -> None:
        """Add a command to the statement."""
        if self._limit is not None and not isinstance(command, syntax.Fields | syntax.Display | syntax.Limit):
            self._close()
        self._add[type(command)](command)

    # ── commands of a layer ──────────────────────────────────────────────────────────────────────────────────────

    def _fields(self, command: syntax.Fields) -> None:
        for item in command.items:
            self._define(item)
            if item.name not in self._shown:
                self._shown.append(item.name)

    def _only(self, command: syntax.Display) -> None:
        for item in command.items:
            self._define(item)
        self._display = [item.name for item in command.items]

    def _define(self, item: Item) -> None:
        column = self._column(item.expression)
        if not isinstance(item.expression, syntax.Name) or item.name != item.expression.text:
            self._scope[item.name] = column

    def _filter(self, command: syntax.Filter) -> None:
        self._conditions.append(self._column(command.condition).sql)

    def _parse(self, command: syntax.Parse) -> None:
        source = self._column(command.source)
        number, compiled = self._regex(command.regex, command.span)
        names = command.names
        if names is None:
            groups = sorted(compiled.groupindex.items(), key=lambda item: item[1])
            if not groups:
                self._refuse("parse needs named groups: (?<name>…)", command.span)
        else:
            groups = [(name, index + 1) for index, name in enumerate(names)]
        for name, index in groups:
            self._scope[name] = Column(f"re_group({number}, {index}, {source.sql})")
            if name not in self._shown:
                self._shown.append(name)

    def _sort(self, command: syntax.Sort) -> None:
        keys = []
        for expression, descending in command.keys:
            column = self._column(expression)
            value = column.sql if column.kind != "any" else f"to_value({column.sql})"
            keys.append(f"{value} {'DESC' if descending else 'ASC'}")
        self._order = ", ".join(keys)

    def _cut(self, command: syntax.Limit) -> None:
        if not 1 <= command.count <= ROWS_LIMIT:
            self._refuse(f"limit takes a number from 1 to {ROWS_LIMIT}", command.span)
        self._limit = command.count if self._limit is None else min(self._limit, command.count)

    # ── commands that begin a layer ──────────────────────────────────────────────────────────────────────────────

    def _aggregate(self, command: syntax.Stats) -> None:
        self._stats += 1
        if self._stats > STATS_LIMIT:
            self._refuse(f"a query has at most {STATS_LIMIT} stats commands", command.aggregates[0].span)
        by = [(item, self._column(item.expression)) for item in command.by]
        aggregates = [(item, self._column(item.expression, by=command.by)) for item in command.aggregates]
        columns = [(item.name, column) for item, column in (*aggregates, *by)]
        keys = [column.sql for _, column in by]
        tail = (f" GROUP BY {', '.join(keys)}" if keys else "") + " HAVING count(*) > 0"
        times = [column.sql for _, column in by if column.kind == "time"]
        self._layer(columns, "count(*)", tail, events=False)
        # As in AWS's charts the newest bin comes first; other groups come in their order.
        names = {item.name for item, column in by if column.kind == "time"}
        order = [f"{self._scope[item.name].sql} DESC" for item, _ in by if item.name in names]
        order += [self._scope[item.name].sql for item, _ in by if item.name not in names]
        self._order = ", ".join(order) if times or order else None
        self._shown = [name for name, _ in columns]
        self._display = None

    def _dedup(self, command: syntax.Dedup) -> None:
        keys = [self._column(key).sql for key in command.keys]
        order = self._order or self._newest_first()
        self._conditions += [f"{key} IS NOT NULL" for key in keys]
        rank = f"row_number() OVER (PARTITION BY {', '.join(keys)} ORDER BY {order})"
        position = Column(f"row_number() OVER (ORDER BY {order})", "number")
        self._close([("", Column(rank, "number")), ("\0order", position)])
        self._conditions.append(f"{self._scope.pop('').sql} = 1")
        self._order = self._scope.pop("\0order").sql

    def _unnest(self, command: syntax.Unnest) -> None:
        listed = self._column(command.source)
        self._close([("", listed)])
        source = self._scope.pop("").sql
        self._source += f", json_each(json_text({source})) AS unnested_{len(self._layers)}"
        self._conditions.append(f"substr({source}, 1, 1) = '['")
        self._scope[command.alias.text] = Column(f"unnested_{len(self._layers)}.value")
        if command.alias.text not in self._shown:
            self._shown.append(command.alias.text)

    def _pattern(self, command: syntax.Pattern) -> None:
        pattern = Column(f"pattern_of({self._column(command.source).text})", "text")
        self._conditions.append(f"{pattern.sql} IS NOT NULL")
        columns = [
            ("@pattern", pattern),
            ("@sampleCount", Column("count(*)", "number")),
            ("@ratio", Column("count(*) * 1.0 / sum(count(*)) OVER ()", "number")),
        ]
        self._layer(columns, "count(*)", f" GROUP BY {pattern.sql}", events=False)
        self._order = f"{self._scope['@sampleCount'].sql} DESC, {self._scope['@pattern'].sql}"
        self._scope["@regexString"] = Column(f"pattern_regex({self._scope['@pattern'].sql})", "text")
        self._scope["@severityLabel"] = Column(f"pattern_severity({self._scope['@pattern'].sql})", "text")
        self._shown = ["@pattern", "@ratio", "@regexString", "@sampleCount", "@severityLabel"]
        self._display = None

    def _close(self, more: Sequence[tuple[str, Column]] = ()) -> None:
        """Make the rows so far the source of a new layer."""
        kept = [(name, column) for name, column in self._scope.items()]
        order = self._order
        if self._limit is not None and order is None and self._events is not None:
            order = self._newest_first()
        tail = f" ORDER BY {order}" if order and self._limit is not None else ""
        tail += f" LIMIT {self._limit}" if self._limit is not None else ""
        position = [("\0order", Column(f"row_number() OVER (ORDER BY {order})", "number"))] if tail and order else []
        self._layer([*kept, *more, *position], "1", tail, events=self._events is not None)
        self._order = self._scope.pop("\0order").sql if position else None

    def _layer(self, columns: Sequence[tuple[str, Column]], matched: str, tail: str, *, events: bool) -> None:
        name = f"q{len(self._layers)}"
        selected = [f"{column.sql} AS c{index}" for index, (_, column) in enumerate(columns)]
        if events:
            assert self._events is not None
            selected += [f"{self._events[raw]} AS {raw}" for raw in _RAW]
        if not self._layers:
            selected.append(f"{matched} AS matched")
        self._layers.append(f"{name} AS (SELECT {', '.join(selected)} FROM {self._where()}{tail})")  # noqa: S608 - built of fixed text, values are bound
        self._source = name
        self._conditions = []
        self._limit = self._order = None
        self._scope = {
            column_name: Column(f"{name}.c{index}", column.kind) for index, (column_name, column) in enumerate(columns)
        }
        self._events = {raw: f"{name}.{raw}" for raw in _RAW} if events else None

    def _where(self) -> str:
        if not self._conditions:
            return self._source
        joined = " AND ".join(f"({condition})" for condition in self._conditions)
        return f"{self._source} {'AND' if self._source == _SOURCE else 'WHERE'} {joined}"

    def _newest_first(self) -> str:
        if self._events is None:
            return "1"
        return f"{self._events['ts']} DESC, {self._events['seq']} DESC"

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self, limit: int) -> Compiled:
        """Return the whole statement."""
        shown = self._display if self._display is not None else self._shown
        if not shown:
            shown = ["@timestamp", "@message"] if self._events is not None else list(self._scope)
        columns = [(name, self._named(name)) for name in shown]
        order = self._order or (self._newest_first() if self._events is not None else None)
        matched = "(SELECT sum(matched) FROM q0)" if self._layers else "count(*) OVER ()"
        pointer = ("sid", "ts", "seq")
        pointers = [self._events[raw] for raw in pointer] if self._events is not None else ["NULL"] * 3
        sql = f"SELECT {', '.join([*(column.sql for _, column in columns), matched, *pointers])} FROM {self._where()}"  # noqa: S608 - built of fixed text, values are bound
        if order:
            sql += f" ORDER BY {order}"
        sql += f" LIMIT {min(limit, ROWS_LIMIT, self._limit or ROWS_LIMIT)}"
        if self._layers:
            sql = f"WITH {', '.join(self._layers)} {sql}"
        return Compiled(
            sql,
            self._parameters,
            tuple((name, column.kind) for name, column in columns),
            tuple(self._regexes),
            self._events is not None,
        )

    def _named(self, name: str) -> Column:
        return self._scope.get(name) or self._field(syntax.Name(name, Span(0, 0)))

    # ── expressions ──────────────────────────────────────────────────────────────────────────────────────────────

    def _column(self, expression: Expression, by: tuple[Item, ...] | None = None) -> Column:
        """Return the SQL of an expression; with `by` it is one of `stats`, which may aggregate."""
        if not isinstance(expression, syntax.Name | syntax.Literal):
            typed = self._scope.get(self._text[expression.span.start : expression.span.end])
            if typed is not None and by is None:
                return typed
        match expression:
            case syntax.Function():
                return self._function(expression, by)
            case syntax.Literal(value):
                return self._literal(value)
            case syntax.Name():
                return self._field(expression) if by is None else self._group_key(expression, by)
            case syntax.Period():
                self._refuse("a period such as 5m can only stand in bin, datefloor and dateceil", expression.span)
            case syntax.Matches():
                return self._matched(expression, by)
            case syntax.Element():
                column = self._column(expression.operand, by)
                path = f"$[{expression.key}]" if isinstance(expression.key, int) else f"$.{_label(expression.key)}"
                return Column(f"json_extract(json_text({column.sql}), {self._parameter(path)})")
            case syntax.Operator():
                return self._operator(expression, by)
        assert_never(expression)

    def _group_key(self, name: syntax.Name, by: tuple[Item, ...]) -> Column:
        item = next((item for item in by if item.name == name.text), None)
        if item is None:
            self._refuse(f"'{name.text}' is neither an aggregate nor one of the fields after 'by'", name.span)
        return self._column(item.expression)

    def _literal(self, value: str | int | float) -> Column:
        kind = "text" if isinstance(value, str) else "number"
        return Column(self._parameter(value), kind)  # type: ignore[arg-type]

    def _parameter(self, value: str | int | float) -> str:
        name = f"p{len(self._parameters)}"
        self._parameters[name] = value
        return f":{name}"

    def _regex(self, pattern: str, span: Span) -> tuple[int, Any]:
        options = re2.Options()
        options.max_mem = REGEX_LIMIT_BYTES
        options.log_errors = False
        try:
            compiled = re2.compile(pattern, options)
        except re2.error as error:
            why = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
            self._refuse(f"invalid regular expression: {why}", span)
        self._regexes.append(compiled)
        return len(self._regexes) - 1, compiled

    def _matched(self, expression: syntax.Matches, by: tuple[Item, ...] | None) -> Column:
        text = self._column(expression.operand, by).text
        if (literal := literals.whole(expression.regex)) is not None:
            return Column(f"(instr({text}, {self._parameter(literal)}) > 0)", "number")
        number, _ = self._regex(expression.regex, expression.span)
        found = f"re_matches({number}, {text})"
        if (needed := literals.needed(expression.regex)) is not None:
            # A search for plain text in C spares most calls of the regular expression.
            found = f"(instr({text}, {self._parameter(needed)}) > 0 AND {found})"
        return Column(found, "number")

    def _operator(self, expression: syntax.Operator, by: tuple[Item, ...] | None) -> Column:
        columns = [self._column(operand, by) for operand in expression.operands]
        match expression.symbol:
            case "and" | "or":
                joined = f" {expression.symbol.upper()} ".join(column.sql for column in columns)
                return Column(f"({joined})", "number")
            case "not":
                return Column(f"(NOT {columns[0].sql})", "number")
            case "negative":
                return Column(f"(-{columns[0].number})", "number")
            case "like":
                return Column(f"(instr({columns[0].text}, {columns[1].text}) > 0)", "number")
            case "in":
                equal = [_compared(columns[0], "=", column) for column in columns[1:]]
                return Column(f"({' OR '.join(equal) or '0'})", "number")
            case "^":
                return Column(f"power({columns[0].number}, {columns[1].number})", "number")
            case "/":
                return Column(f"({columns[0].number} * 1.0 / {columns[1].number})", "number")
            case "%":
                return Column(f"mod({columns[0].number}, {columns[1].number})", "number")
            case "+" | "-" | "*":
                return Column(f"({columns[0].number} {expression.symbol} {columns[1].number})", "number")
            case _:
                return Column(_compared(columns[0], expression.symbol, columns[1]), "number")

    def _function(self, expression: syntax.Function, by: tuple[Item, ...] | None) -> Column:
        name = expression.name.lower()
        if name in AGGREGATES:
            return self._aggregated(expression, name, in_stats=by is not None)
        if name in ("bin", "datefloor", "dateceil"):
            if by is not None:
                return self._group_key(syntax.Name(self._typed(expression), expression.span), by)
            return self._binned(expression, name)
        if name == "now" and not expression.arguments:
            return Column(str(self._now_ms // 1000), "number")
        if (scalar := SCALARS.get(name)) is None or expression.star:
            self._refuse(f"unknown function {expression.name}", expression.span)
        if not scalar.least <= len(expression.arguments) <= scalar.most:
            self._refuse(f"invalid number of arguments of the function {expression.name}", expression.span)
        return scalar.build([self._column(argument, by) for argument in expression.arguments])

    def _aggregated(self, expression: syntax.Function, name: str, *, in_stats: bool) -> Column:
        if not in_stats:
            self._refuse(f"the function {expression.name} can only be used in stats", expression.span)
        count, build = AGGREGATES[name]
        if name == "count" and not expression.arguments:
            return Column("count(*)", "number")
        if expression.star or len(expression.arguments) != count:
            self._refuse(f"invalid number of arguments of the function {expression.name}", expression.span)
        time = self._events["ts"] if self._events is not None else None
        if name in ("earliest", "latest") and time is None:
            self._refuse(f"{expression.name} needs events, which a stats command before it has left", expression.span)
        return build([self._column(argument) for argument in expression.arguments], time)

    def _binned(self, expression: syntax.Function, name: str) -> Column:
        arguments = expression.arguments
        if name == "bin" and len(arguments) == 1:
            arguments = (syntax.Name("@timestamp", expression.span), *arguments)
        if len(arguments) != 2 or not isinstance(arguments[1], syntax.Period) or arguments[1].count < 1:
            self._refuse(f"{expression.name} takes a period such as 5m or 1h", expression.span)
        period = arguments[1]
        time = self._column(arguments[0]).number
        if (unit_ms := _PERIOD_MS.get(period.unit)) is None:
            floor = f"date_floor({time}, {period.count}, '{period.unit}')"
            if name == "dateceil":
                self._refuse("dateceil takes milliseconds, seconds, minutes, hours or days", period.span)
            return Column(floor, "time")
        length = period.count * unit_ms
        shift = length - 1 if name == "dateceil" else 0
        return Column(f"(CAST({time} AS INTEGER) + {shift}) / {length} * {length}", "time")

    # ── fields ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _field(self, name: syntax.Name) -> Column:
        """Return a field: defined before, of the event, or discovered in its text."""
        if (column := self._scope.get(name.text)) is not None:
            return column
        parts = name.text.split(".")
        for length in range(len(parts) - 1, 0, -1):
            if (parent := self._scope.get(".".join(parts[:length]))) is not None:
                return Column(f"json_extract(json_text({parent.sql}), {self._parameter(_path(parts[length:]))})")
        events = self._events
        if events is None:
            self._refuse(f"the field {name.text} is not among those of the stats command before", name.span)
        match name.text:
            case "@timestamp":
                return Column(events["ts"], "time")
            case "@ingestionTime":
                return Column(events["ingested"], "time")
            case "@message":
                return Column(events["m"], "text")
            case "@logStream":
                return Column(events["stream"], "text")
            case "@log":
                return Column(events["log"], "text")
            case "@requestId":
                return Column(f"request_id({events['m']})", "text")
            case "@type":
                word = f"substr({events['m']}, 1, instr({events['m']}, ' ') - 1)"
                return Column(f"CASE WHEN {word} IN ('START', 'END', 'REPORT') THEN {word} END", "text")
        discovered = name.text.removeprefix("@")
        if name.text.startswith("@"):
            if discovered not in LAMBDA_REPORT:
                return Column("NULL")
            kind = "text" if discovered == "xrayTraceId" else "number"
            line = f"substr({events['m']}, 1, 7) = 'REPORT '"
            return Column(f"CASE WHEN {line} THEN lambda_report({events['m']}, '{discovered}') END", kind)  # type: ignore[arg-type]
        return self._member(events["m"], _path(parts))

    def _member(self, message: str, path: str) -> Column:
        """Return a member of the JSON that a line is or has inside."""
        where = self._parameter(path)
        return Column(
            f"CASE WHEN substr({message}, 1, 1) = '{{' THEN "
            f"CASE WHEN json_valid({message}) THEN json_extract({message}, {where}) END "
            f"WHEN instr({message}, '{{') THEN json_extract(json_fragment({message}), {where}) END"
        )

    def _typed(self, expression: Expression) -> str:
        return self._text[expression.span.start : expression.span.end]

    def _refuse(self, message: str, span: Span) -> NoReturn:
        raise MalformedQueryError(message, span.start, span.end)


def _compared(left: Column, symbol: str, right: Column) -> str:
    """Return the SQL of a comparison: of numbers if either is known to be one, of texts, or as the values turn out."""
    numeric = ("number", "time")
    if left.kind in numeric or right.kind in numeric:
        return f"({left.number} {symbol} {right.number})"
    if symbol in ("=", "!=") and "text" in (left.kind, right.kind):
        return f"({left.text} {symbol} {right.text})"
    return f"(compare({left.sql}, {right.sql}) {symbol} 0)"


def _path(parts: Sequence[str]) -> str:
    """Return the JSON path of a.b.0: a member, a member, an element."""
    return "$" + "".join(f"[{part}]" if part.isdigit() else f".{_label(part)}" for part in parts)


def _label(key: str) -> str:
    return '"' + re.sub(r'["\\]', lambda match: f"\\{match[0]}", key) + '"'
