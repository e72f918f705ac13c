"""A file: everything that happened to it, from the login to the delivery."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot.console import render
from entrepot.console.ask import Ask
from entrepot.console.pages.executions import Shown, course_of
from entrepot.console.pages.forms import ask
from entrepot.errors import AwsError


async def file(request: Request) -> Response:
    """The page."""
    asking = ask(request)
    answer = await asking("entrepot", "GetFile", file=request.path_params["file_id"])
    record, timeline = answer["file"], answer["timeline"]
    return render.page(
        request,
        "file.html",
        section="files",
        file=record,
        entries=_spread(timeline),
        lines=[entry for entry in timeline if entry["kind"] == "log"],
        course=await _course(asking, record.get("execution_arn", "")),
    )


async def _course(asking: Ask, execution_arn: str) -> Shown | None:
    """Return what the file's execution did; None without one, and when it is not kept (Express, or long ago)."""
    if not execution_arn or ":execution:" not in execution_arn:
        return None
    try:
        return await course_of(asking, execution_arn)
    except AwsError:
        return None


def _spread(timeline: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries with their place in the waterfall: start and width in thousandths of the whole."""
    times = [
        moment.timestamp() * 1000 for entry in timeline if (moment := render.moment(entry["timestamp"])) is not None
    ]
    if not times:
        return []
    first, last = min(times), max(times)
    span = max(1.0, last - first)
    spread = []
    for place, (entry, at_ms) in enumerate(zip(timeline, times, strict=True)):
        following = times[place + 1] if place + 1 < len(times) else at_ms
        spread.append(
            {
                **entry,
                "after_ms": at_ms - first,
                "start": round((at_ms - first) / span * 1000),
                "width": max(4, round((following - at_ms) / span * 1000)),
            }
        )
    return spread


ROUTES = [Route("/files/{file_id}", file, name="file")]
