"""Expectations: what should arrive until when, what came of it, and the calendar of recent windows."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot.console import render
from entrepot.console.pages.forms import ask

OUTCOMES_SHOWN = 120
WEEKS_SHOWN = 8

UNMET = ("missing", "too-small")
ORDER = ("missing", "too-small", "late", "duplicate", "arrived", "")
"""How the list is sorted: what needs somebody comes first."""

WEEKDAYS: Mapping[str, str] = {
    "mon": "Monday", "tue": "Tuesday", "wed": "Wednesday", "thu": "Thursday", "fri": "Friday", "sat": "Saturday",
    "sun": "Sunday",
}  # fmt: skip


async def expectations(request: Request) -> Response:
    """The list."""
    return render.page(request, "expectations.html", section="expectations", **await gathered(request))


async def fragment(request: Request) -> Response:
    """The table alone, for its refreshing."""
    return render.page(request, "expectations_table.html", section="expectations", **await gathered(request))


async def gathered(request: Request) -> dict[str, Any]:
    """Return all expectations, those that were not met first."""
    found = (await ask(request)("entrepot", "ListExpectations"))["expectations"]
    for one in found:
        one["outcome"] = one.get("last_outcome", {}).get("outcome", "")
    return {
        "expectations": sorted(found, key=lambda one: (ORDER.index(one["outcome"]), one["name"])),
        "days_of": days_of,
    }


async def expectation(request: Request) -> Response:
    """The page of an expectation."""
    answer = await ask(request)("entrepot", "GetExpectation", name=request.path_params["name"], limit=OUTCOMES_SHOWN)
    return render.page(
        request,
        "expectation.html",
        section="expectations",
        expectation=answer["expectation"],
        outcomes=answer["outcomes"],
        unmet=bool(answer["outcomes"]) and answer["outcomes"][0]["outcome"] in UNMET,
        weeks=calendar(answer["outcomes"], answer["expectation"].get("next_window", "")),
        weekdays=WEEKDAYS,
        days_of=days_of,
    )


def days_of(expectation: Mapping[str, Any]) -> str:
    """Return in words on which days something is expected."""
    days = expectation["days"]
    if set(days) == set(WEEKDAYS):
        return "every day"
    if set(days) == set(list(WEEKDAYS)[:5]):
        return "working days"
    return ", ".join(title for day, title in WEEKDAYS.items() if day in days)


def calendar(outcomes: Sequence[Mapping[str, Any]], next_window: str) -> list[list[tuple[date, str]]]:
    """Return the newest weeks, newest first: for each day its date and outcome ("waiting" for the window to come)."""
    known = {outcome["window"]: outcome["outcome"] for outcome in outcomes}
    if next_window:
        known.setdefault(next_window, "waiting")
    if not known:
        return []
    dates = sorted(date.fromisoformat(day) for day in known)
    monday = dates[-1] - timedelta(days=dates[-1].weekday())
    oldest = max(dates[0], monday - timedelta(weeks=WEEKS_SHOWN - 1))
    weeks = []
    while monday + timedelta(days=6) >= oldest:
        days = [monday + timedelta(days=number) for number in range(7)]
        weeks.append([(day, known.get(day.isoformat(), "")) for day in days])
        monday -= timedelta(weeks=1)
    return weeks


ROUTES = [
    Route("/expectations", expectations, name="expectations"),
    Route("/fragments/expectations", fragment, name="expectations_fragment"),
    Route("/expectations/{name}", expectation, name="expectation"),
]
