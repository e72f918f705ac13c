"""Functions: their configuration, versions and workers, their recent invocations, and one to try out."""

import base64
import json
import re
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot import clock
from entrepot.console import render
from entrepot.console.ask import Ask
from entrepot.console.pages.forms import ask, field
from entrepot.errors import AwsError

PAGE_SIZE = 100

INVOCATIONS_SHOWN = 20

LINES_READ = 1_000
"""Recent invocations are found among this many of the newest lines of the log group."""

SPANS_MS = (60_000, 900_000, 6 * 3_600_000, 7 * 86_400_000)
"""Recent invocations are looked for this far back, the shortest first."""

_REPORT = re.compile(
    r"REPORT RequestId: (?P<id>[0-9a-f-]{36})\s+Duration: (?P<ms>[\d.]+) ms\s+Billed Duration: \d+ ms\s+"
    r"Memory Size: (?P<size>\d+) MB\s+Max Memory Used: (?P<used>\d+) MB(?P<rest>.*)"
)
_INIT = re.compile(r"Init Duration: ([\d.]+) ms")


@dataclass(slots=True)
class Invocation:
    """An invocation as its REPORT line tells it; `error` is what the function's log said, "" for none."""

    request_id: str
    ended_at_ms: int
    duration_ms: float
    memory_mb: int
    used_mb: int
    init_ms: float | None
    error: str
    stream: str


async def functions(request: Request) -> Response:
    """The list."""
    asking = ask(request)
    answer = await asking(
        "lambda", "ListFunctions", MaxItems=PAGE_SIZE, Marker=request.query_params.get("next") or None
    )
    status = (await asking("entrepot", "GetStatus"))["functions"]
    marker = answer.get("NextMarker")
    return render.page(
        request,
        "functions.html",
        section="functions",
        functions=answer["Functions"],
        workers={counts["name"]: counts for counts in status["by_function"]},
        status=status,
        next_page=render.with_query(request, next=marker) if marker else "",
    )


async def function(request: Request) -> Response:
    """A function."""
    return await _function(request)


async def _function(request: Request, *, payload: str = "{}", result: dict[str, Any] | None = None) -> Response:
    asking, name = ask(request), request.path_params["name"]
    configuration = await asking("lambda", "GetFunctionConfiguration", FunctionName=name)
    versions = await asking("lambda", "ListVersionsByFunction", FunctionName=name, MaxItems=50)
    aliases = await asking("lambda", "ListAliases", FunctionName=name)
    sources = await asking("lambda", "ListEventSourceMappings", FunctionName=name)
    reserved = await asking("lambda", "GetFunctionConcurrency", FunctionName=name)
    provisioned = await asking("lambda", "ListProvisionedConcurrencyConfigs", FunctionName=name)
    status = (await asking("entrepot", "GetStatus"))["functions"]
    group = configuration.get("LoggingConfig", {}).get("LogGroup") or f"/aws/lambda/{name}"
    return render.page(
        request,
        "function.html",
        section="functions",
        function=configuration,
        variables=configuration.get("Environment", {}).get("Variables", {}),
        versions=versions["Versions"],
        aliases=aliases["Aliases"],
        sources=sources["EventSourceMappings"],
        reserved=reserved.get("ReservedConcurrentExecutions"),
        provisioned=provisioned["ProvisionedConcurrencyConfigs"],
        workers=[counts for counts in status["by_function"] if counts["name"].split(":")[0] == name],
        status=status,
        log_group=group,
        invocations=await _invocations(asking, group),
        payload=payload,
        result=result,
    )


async def _invocations(asking: Ask, group: str) -> list[Invocation]:
    """Return the newest invocations that the log group tells of, the newest first."""
    now_ms = clock.now_ms()
    found: list[Invocation] = []
    for span_ms in SPANS_MS:
        try:
            answer = await asking(
                "logs", "FilterLogEvents", logGroupName=group, startTime=now_ms - span_ms, limit=LINES_READ
            )
        except AwsError:
            return found  # no line was ever written
        fuller = invocations_of(answer["events"])
        found = found if len(found) > len(fuller) else fuller
        if len(found) >= INVOCATIONS_SHOWN or "nextToken" in answer:
            break
    return found[-INVOCATIONS_SHOWN:][::-1]


def invocations_of(events: list[dict[str, Any]]) -> list[Invocation]:
    """Return the invocations in lines of a function's log, oldest first. A worker's lines are a stream of their own."""
    found = []
    errors: dict[str, str] = {}
    for event in events:
        message, stream = event["message"], event["logStreamName"]
        report = _REPORT.match(message)
        if message.startswith("START RequestId"):
            errors[stream] = ""
        elif report is not None:
            init = _INIT.search(report["rest"])
            timed_out = "Status: timeout" in report["rest"]
            found.append(
                Invocation(
                    report["id"],
                    event["timestamp"],
                    float(report["ms"]),
                    int(report["size"]),
                    int(report["used"]),
                    float(init[1]) if init else None,
                    errors.get(stream, "") or ("timed out" if timed_out else ""),
                    stream,
                )
            )
        elif message.startswith("[ERROR]") or "Task timed out" in message or "Runtime exited" in message:
            errors[stream] = errors.get(stream) or message.splitlines()[0].removeprefix("[ERROR]").strip()[:300]
    return sorted(found, key=lambda invocation: invocation.ended_at_ms)


async def invoke(request: Request) -> Response:
    """Invoke the function with what the form says, and show what it answered."""
    name, payload = request.path_params["name"], field(request, "payload") or "{}"
    try:
        json.loads(payload)
    except ValueError as error:
        return await _function(request, payload=payload, result={"problem": f"The event is not JSON: {error}"})
    request.app.state.console.note(request, "Invoke", name)
    began_ms = clock.now_ms()
    try:
        answer = await ask(request)(
            "lambda",
            "Invoke",
            FunctionName=name,
            Payload=payload.encode(),
            LogType="Tail",
            Qualifier=field(request, "qualifier") or None,
        )
    except AwsError as error:
        return await _function(request, payload=payload, result={"problem": f"{error.code}: {error.message}"})
    result = {
        "problem": "",
        "failed": answer.get("FunctionError", ""),
        "answer": await _text(answer.get("Payload", b"")),
        "log": _log_tail(answer.get("LogResult", "")),
        "took_ms": clock.now_ms() - began_ms,
        "version": answer.get("ExecutedVersion", ""),
    }
    return await _function(request, payload=payload, result=result)


async def _text(body: Any) -> str:
    if isinstance(body, bytes | bytearray):
        return bytes(body).decode("utf-8", "replace")
    if hasattr(body, "__aiter__"):
        return b"".join([piece async for piece in body]).decode("utf-8", "replace")
    return str(body)


def _log_tail(encoded: str) -> str:
    return base64.b64decode(encoded).decode("utf-8", "replace") if encoded else ""


ROUTES = [
    Route("/functions", functions, name="functions"),
    Route("/functions/{name}", function, name="function"),
    Route("/functions/{name}/invoke", invoke, methods=["POST"], name="function_invoke"),
]
