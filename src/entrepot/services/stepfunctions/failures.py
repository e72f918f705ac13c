"""How a task fails, whatever its resource is."""


class TaskError(Exception):
    """A task's failure under AWS's name."""

    def __init__(self, error: str, cause: str | None) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause
