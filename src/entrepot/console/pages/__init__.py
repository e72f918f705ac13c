"""The pages, one module for each section of the console. Each has `ROUTES`."""

from starlette.routing import Route

from entrepot.console.pages import (
    alarms,
    dashboards,
    executions,
    expectations,
    file,
    files,
    functions,
    insights,
    live,
    login,
    logs,
    metrics,
    overview,
    rules,
    sessions,
    topics,
    users,
)

SECTIONS = (
    ("overview", "Overview", "/"),
    ("files", "Files", "/files"),
    ("executions", "Executions", "/executions"),
    ("functions", "Functions", "/functions"),
    ("rules", "Rules", "/rules"),
    ("sessions", "Sessions", "/sessions"),
    ("users", "Users", "/users"),
    ("logs", "Logs", "/logs"),
    ("alarms", "Alarms", "/alarms"),
    ("expectations", "Expectations", "/expectations"),
    ("dashboards", "Dashboards", "/dashboards"),
)
"""What the navigation shows: name, title and address."""

SCRIPTS = ("uPlot.iife.min.js", "uPlot.min.css")
"""What the build takes from npm packages."""


MODULES = (
    overview,
    files,
    file,
    executions,
    functions,
    rules,
    sessions,
    users,
    insights,
    logs,
    alarms,
    expectations,
    topics,
    dashboards,
    live,
    login,
    metrics,
)
"""Every page's module, in the order in which addresses are compared."""


def routes() -> list[Route]:
    """Return every route of the console."""
    return [route for module in MODULES for route in module.ROUTES]
