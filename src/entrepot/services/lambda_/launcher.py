"""What a worker process runs first: it ties itself down, warms the imports, and becomes `python -m awslambdaric`.

Executed by path, never imported: it must not load the server's packages. Arguments: the server's process id, limits
(`data_bytes`, `processes`, 0 for none), then those of awslambdaric.
"""

import contextlib
import ctypes
import gc
import os
import resource
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_NO_NEW_PRIVS = 38


def tie_down(parent_pid: int, data_bytes: int, processes: int) -> None:
    """Die with the server, gain no privileges, leave no core file, and keep to the limits."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) or os.getppid() != parent_pid:
        os._exit(0)  # the server is gone already
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for limit, value in ((resource.RLIMIT_DATA, data_bytes), (resource.RLIMIT_NPROC, processes)):
        if value:
            with contextlib.suppress(ValueError, OSError):  # a stricter limit is in force already
                resource.setrlimit(limit, (value, value))


def warm_imports() -> None:
    """Import what nearly every function imports, as AWS's runtime image does, and spare the collector from it."""
    with contextlib.suppress(ImportError):
        import boto3  # noqa: F401
        import botocore.auth
        import botocore.endpoint
        import botocore.parsers
        import botocore.retries.standard  # noqa: F401
    import http.client  # noqa: F401

    gc.collect()
    gc.freeze()
    sys.dont_write_bytecode = True  # the code folder is not the function's to write to


def main() -> None:
    """Become awslambdaric."""
    parent_pid, data_bytes, processes = (int(argument) for argument in sys.argv[1:4])
    tie_down(parent_pid, data_bytes, processes)
    sys.path[0] = os.environ["LAMBDA_TASK_ROOT"]
    warm_imports()
    sys.argv[1:] = sys.argv[4:]
    runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
