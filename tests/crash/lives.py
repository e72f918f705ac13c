"""The deaths of a server: killed while it starts, found dead, buried."""

import signal
import threading
import time

from tests.running import NotReadyError, Stack


def kill_while_starting(stack: Stack, after_s: float) -> None:
    """Start the server and kill it so long after: at a moment between the first import and the end of its recovery."""

    def kill() -> None:
        process = stack.process
        if process is not None:
            process.kill()

    timer = threading.Timer(after_s, kill)
    timer.start()
    try:
        stack.start()
    except NotReadyError as death:
        assert death.code == -signal.SIGKILL, f"the server did not start: {death}"
    else:
        assert stack.process is not None
        stack.process.wait(30)  # It recovers: what is left of the time is a death there.
        bury(stack)
    finally:
        timer.join()


def is_dead(stack: Stack) -> bool:
    """Say whether the server is dead, or dies within a moment."""
    process = stack.process
    assert process is not None
    end_s = time.monotonic() + 2
    while process.poll() is None and time.monotonic() < end_s:
        time.sleep(0.01)
    return process.poll() is not None


def bury(stack: Stack) -> None:
    """Clean up after a server that was killed; raise AssertionError when it ended in another way."""
    assert stack.process is not None
    code = stack.process.wait(10)
    assert code == -signal.SIGKILL, f"the server ended with exit code {code}:\n{stack.server_log()[-3000:]}"
    stack.kill()
