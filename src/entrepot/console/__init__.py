"""The console: server-rendered pages on a listener of their own.

This room owns pages, their templates and styles, logins and sessions. It has no way of its own to the data: what a page shows
and what a button does are operations, called through the same gate as everybody's, with the rights of who is logged in. Pages
read without JavaScript; with it, tables and charts stay current.
"""

from entrepot.console.app import Console, ConsoleSettings
from entrepot.console.oidc import OidcSettings
from entrepot.console.operations import operations
from entrepot.console.visitors import MIGRATIONS, Visitor

__all__ = ["MIGRATIONS", "Console", "ConsoleSettings", "OidcSettings", "Visitor", "operations"]
