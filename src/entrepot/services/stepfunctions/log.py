"""The log lines of executions, as AWS writes them to a state machine's log group.

Source: https://docs.aws.amazon.com/step-functions/latest/dg/cw-logs.html
"""

from entrepot import clock
from entrepot.loglines import LogLine, WriteLog

from . import history
from .executions import Execution
from .history import Event

LogLines = list[tuple[str, str, LogLine]]


class ExecutionLog:
    """Writes events at the level that the state machine's logging configuration names."""

    def __init__(self, write_log: WriteLog) -> None:
        self._write_log = write_log

    def lines(self, execution: Execution, events: list[Event]) -> LogLines:
        """Return (group, stream, line) of the events that are to be logged."""
        machine = execution.machine
        level = machine.logging.level
        if level == "OFF":
            return []
        group = machine.log_group_name
        stream = f"states/{machine.name}/{clock.iso(execution.started_at_ms)[:10]}/{execution.machine.revision_id:08x}"
        data = machine.logging.include_execution_data
        return [
            (
                group,
                stream,
                LogLine(
                    event.at_ms,
                    history.log_message(event, execution.arn, execution.redrive_count, include_data=data),
                ),
            )
            for event in events
            if history.is_logged(event.type, level)
        ]

    def write(self, lines: LogLines) -> None:
        """Hand the lines over; call this when they are true, after the commit."""
        for group, stream, line in lines:
            self._write_log(group, stream, line)
