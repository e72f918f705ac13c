"""The commands. `init`, `check` and `up` work on the stack's folder; all others talk to the running server's public API.

Exit codes: 0 done · 1 the request failed, or part of it · 2 wrong usage · 3 the stack is invalid · 4 the server cannot be
reached · 5 no such thing · 130 interrupted.
"""

import sys


def main() -> None:
    """Run the command line; exit with the documented codes."""
    from entrepot.cli.app import app, exit_code_of

    try:
        app(prog_name="entrepot")
    except Exception as error:
        code, message = exit_code_of(error)
        if message is None:
            raise
        print(f"entrepot: {message}", file=sys.stderr)
        sys.exit(code)
