"""How a process becomes AWS's runtime client for Python: in place, with its imports made, or as a fresh interpreter."""

import importlib
import runpy
import sys
from collections.abc import Mapping
from typing import NoReturn

_PREIMPORTED = """
    awslambdaric boto3 botocore dateutil entrepot jmespath runtime_client s3transfer simplejson six snapshot_restore_py urllib3
"""
PREIMPORTED = frozenset(_PREIMPORTED.split())
"""Packages in the launcher's memory. A function that brings one of them along gets a fresh interpreter, and its own."""

FRESH_VARIABLES = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "OPENSSL_")
"""Variables that begin so are read when a process begins: a function that sets one gets a fresh interpreter (but for
PYTHONPATH)."""

_MODULES = (
    "http.client",
    "json",
    "logging",
    "traceback",
    "awslambdaric.lambda_config",
    "awslambdaric.lambda_context",
    "awslambdaric.lambda_runtime_log_utils",
    "awslambdaric.lambda_runtime_marshaller",
    "boto3",
    "botocore.auth",
    "botocore.endpoint",
    "botocore.parsers",
    "botocore.retries.standard",
)
"""Not `runtime_client`: it reads where the Runtime API is when it is imported."""

_FRESH = """
import os, runpy, sys
sys.path[0] = os.environ["LAMBDA_TASK_ROOT"]
sys.dont_write_bytecode = True
runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
"""


def fresh_command(handler: str) -> list[str]:
    """Return the command that runs the handler in a new interpreter."""
    return [sys.executable, "-s", "-c", _FRESH, handler]


def preimport() -> None:
    """Import what nearly every function imports, as AWS's runtime image does."""
    for name in _MODULES:
        importlib.import_module(name)


def serve(handler: str, environment: Mapping[str, str]) -> NoReturn:
    """Become `python -m awslambdaric handler` in this process. The code comes before PYTHONPATH, as on AWS."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "entrepot"]:
        del sys.modules[name]
    sys.path[:0] = [environment["LAMBDA_TASK_ROOT"], *filter(None, environment.get("PYTHONPATH", "").split(":"))]
    sys.argv = ["awslambdaric", handler]
    runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)
    sys.exit()
