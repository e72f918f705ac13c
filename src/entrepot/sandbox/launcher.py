"""The launcher: a process without threads, secrets or open files, from which every function's process is forked.

Executed by its path, with the number of its end of a socket to the server. Requests are packets: `probe` (answered with JSON),
`import`, and `start` with two descriptors: a control socket and where the function's output goes. The launcher itself never reads
what is sent to a guard: no function's credentials are ever in memory that another function's process inherits.
"""

import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from entrepot.sandbox import guard, kernel, probe, python

sys.path.pop(0)


def main() -> None:
    """Serve until the server is gone."""
    server_pid, requests = int(sys.argv[1]), socket.socket(fileno=int(sys.argv[2]))
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server_pid:
        return
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # guards report to the server themselves
    sys.dont_write_bytecode = True
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, 64, 2)
        match request:
            case b"":
                return
            case b"probe":
                requests.send(json.dumps(probe.probe()).encode())
            case b"import":
                python.preimport()
                gc.collect()
                gc.freeze()  # what is here stays, and is shared by all forks
            case b"start":
                if os.fork() == 0:
                    requests.close()
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    guard.run(socket.socket(fileno=descriptors[0]), descriptors[1])
                for descriptor in descriptors:
                    os.close(descriptor)


if __name__ == "__main__":
    main()
