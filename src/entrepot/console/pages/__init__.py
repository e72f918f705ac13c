"""The pages, one module for each section of the console. Each has `ROUTES`."""

from starlette.routing import Route

from entrepot.console.pages import executions, file, files, live, login, metrics, overview

SECTIONS = (
    ("overview", "Overview", "/"),
    ("files", "Files", "/files"),
    ("executions", "Executions", "/executions"),
)
"""What the navigation shows: name, title and address."""

SCRIPTS = ("htmx.min.js", "uPlot.iife.min.js", "uPlot.min.css")
"""What the build takes from npm packages."""


def routes() -> list[Route]:
    """Return every route of the console."""
    return [route for module in (overview, files, file, executions, live, login, metrics) for route in module.ROUTES]
