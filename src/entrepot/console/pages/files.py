"""Files: a table of what arrived, searched by the filters in the address."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from entrepot.console import render
from entrepot.console.pages.forms import ask, done, field
from entrepot.errors import AwsError

PAGE_SIZE = 50

STATUSES = ("uploaded", "transferring", "transferred", "failed")


async def files(request: Request) -> Response:
    """The page."""
    return render.page(request, "files.html", section="files", **await gathered(request))


async def fragment(request: Request) -> Response:
    """The table alone, for its refreshing."""
    return render.page(request, "files_table.html", section="files", **await gathered(request))


async def gathered(request: Request) -> dict[str, Any]:
    """Return a page of files for the filters in the address."""
    query = request.query_params
    filters = {name: query.get(name, "").strip() for name in ("status", "customer", "key", "since")}
    since = render.moment(filters["since"]) if filters["since"] else None
    problem = "" if since is not None or not filters["since"] else f"“{filters['since']}” is no time."
    found: dict[str, Any] = {"files": []}
    try:
        found = await ask(request)(
            "entrepot",
            "ListFiles",
            status=filters["status"] if filters["status"] in STATUSES else None,
            customer_id=filters["customer"] or None,
            key_prefix=filters["key"] or None,
            since=since,
            limit=PAGE_SIZE,
            next_token=query.get("next") or None,
        )
    except AwsError as error:
        problem = error.message
    next_token = found.get("next_token")
    return {
        "filters": filters,
        "statuses": STATUSES,
        "files": found["files"],
        "problem": problem,
        "next_page": render.with_query(request, next=next_token) if next_token else "",
        "first_page": render.with_query(request, next=None) if query.get("next") else "",
    }


async def redrive(request: Request) -> Response:
    """Deliver a file again, or every failed one."""
    asking = ask(request)
    file_id = field(request, "file_id")
    if file_id:
        request.app.state.console.note(request, "RedriveFiles", file_id)
        await asking("entrepot", "RedriveFiles", file_ids=[file_id])
        return done(render.path("files", file_id), "The file is delivered again.")
    request.app.state.console.note(request, "RedriveFiles", "status=failed")
    answer = await asking("entrepot", "RedriveFiles", status="failed")
    count = len(answer["files"])
    return done("/files", f"{count} failed {'file is' if count == 1 else 'files are'} delivered again.")


ROUTES = [
    Route("/files", files, name="files"),
    Route("/fragments/files", fragment, name="files_fragment"),
    Route("/files/redrive", redrive, methods=["POST"], name="files_redrive"),
]
