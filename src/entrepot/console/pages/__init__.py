"""The pages, one module for each section of the console. Each has `ROUTES`."""

from starlette.routing import Route

from entrepot.console.pages import (
    alarms,
    dashboards,
    executions,
    expectations,
    file,
    files,
    insights,
    live,
    login,
    logs,
    metrics,
    overview,
    sessions,
    topics,
    users,
)

SECTIONS = (
    ("overview", "Overview", "/"),
    ("files", "Files", "/files"),
    ("executions", "Executions", "/executions"),
    ("sessions", "Sessions", "/sessions"),
    ("users", "Users", "/users"),
    ("logs", "Logs", "/logs"),
    ("alarms", "Alarms", "/alarms"),
    ("dashboards", "Dashboards", "/dashboards"),
)
"""What the navigation shows: name, title and address."""

    ("expectations", "Expectations", "/expectations"),
SCRIPTS = ("htmx.min.js", "uPlot.iife.min.js", "uPlot.min.css")
"""What the build takes from npm packages."""


MODULES = (
    overview,
    files,
    file,
    executions,
    sessions,
    users,
    insights,
    logs,
    alarms,
    topics,
    dashboards,
    live,
    login,
    metrics,
)
    expectations,
"""Every page's module, in the order in which addresses are compared."""


def routes() -> list[Route]:
    """Return every route of the console."""
    return [route for module in MODULES for route in module.ROUTES]
