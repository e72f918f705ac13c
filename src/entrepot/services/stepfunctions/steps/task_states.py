"""Task states: scheduling, time-outs and heartbeats, and the outcomes that come back."""

from typing import Any

from entrepot.services.stepfunctions import tokens
from entrepot.services.stepfunctions.happenings import (
    ActivityTaken,
    AwaitedFailed,
    AwaitedSucceeded,
    HeartbeatCame,
    ScheduledTask,
    TaskFailed,
    TaskSucceeded,
)
from entrepot.services.stepfunctions.language.definition import Integration, Task
from entrepot.services.stepfunctions.language.evaluation import (
    DATA_LIMIT_EXCEEDED,
    HEARTBEAT_TIMEOUT,
    TIMEOUT,
    Json,
    StatesError,
)
from entrepot.services.stepfunctions.state import Frame, Phase

from .base import limit_cause, too_large
from .failing import Failing
from .places import Place, places


class TaskStates(Failing):
    """What a step does about tasks."""

    def _schedule(self, place: Place) -> None:
        state, frame = place.state, place.frame
        assert isinstance(state, Task)
        frame.token = ""
        if state.resource.waits_for_token or state.resource.integration is Integration.ACTIVITY:
            frame.token = tokens.make(self.state.arn, self.state.last_task_id + 1, self.random)
        scope = self._effective(place)
        parameters = self._arguments(place, state, scope)
        timeout_s = state.timeout.evaluate(scope) if state.timeout is not None else None
        heartbeat_s = state.heartbeat.evaluate(scope) if state.heartbeat is not None else None
        text = self._text(parameters)
        if too_large(text):
            raise StatesError(DATA_LIMIT_EXCEEDED, f"The input of the state/task '{state.name}' is too large.")
        role_arn = None
        if state.credentials is not None:
            role_arn = state.credentials.evaluate(scope).get("RoleArn")
        self._record_scheduled(place, state, text, timeout_s, heartbeat_s, role_arn)
        frame.phase = Phase.TASK
        self.state.last_task_id += 1
        frame.task_id = self.state.last_task_id
        frame.timeout_at_ms = None if timeout_s is None else self.at_ms + timeout_s * 1_000
        frame.heartbeat_s = heartbeat_s or 0
        if state.resource.integration is Integration.ACTIVITY:
            frame.due_at_ms, frame.heartbeat = frame.timeout_at_ms, False  # heartbeats count from ActivityStarted
        else:
            self._set_limit(frame)
        self.tasks.append(ScheduledTask(frame.task_id, state, parameters, role_arn))

    def _set_limit(self, frame: Frame) -> None:
        """Set when a task times out: at the end of its time, or when no heartbeat came for too long."""
        frame.due_at_ms, frame.heartbeat = frame.timeout_at_ms, False
        if frame.heartbeat_s:
            beat_at_ms = self.at_ms + frame.heartbeat_s * 1_000
            if frame.due_at_ms is None or beat_at_ms < frame.due_at_ms:
                frame.due_at_ms, frame.heartbeat = beat_at_ms, True

    def _record_scheduled(
        self,
        place: Place,
        state: Task,
        text: str,
        timeout_s: int | None,
        heartbeat_s: int | None,
        role_arn: str | None,
    ) -> None:
        resource = state.resource
        limits: dict[str, Any] = {}
        if timeout_s is not None:
            limits["timeoutInSeconds"] = timeout_s
        if role_arn is not None:
            limits["taskCredentials"] = {"roleArn": role_arn}
        if resource.integration is Integration.FUNCTION_ARN:
            self._record(place, "LambdaFunctionScheduled", {"resource": resource.arn, "input": text, **limits})
            self._record(place, "LambdaFunctionStarted", {})
            return
        if heartbeat_s is not None:
            limits["heartbeatInSeconds"] = heartbeat_s
        if resource.integration is Integration.ACTIVITY:
            self._record(place, "ActivityScheduled", {"resource": resource.arn, "input": text, **limits})
            return
        kind = {"resourceType": resource.resource_type, "resource": resource.resource}
        region = self.state.arn.split(":", 4)[3]
        self._record(place, "TaskScheduled", {**kind, "region": region, "parameters": text, **limits})
        self._record(place, "TaskStarted", kind)

    def _task_ended(self, happening: TaskSucceeded | TaskFailed) -> None:
        for place in places(self.machine, self.state):
            if place.frame.phase is Phase.TASK and place.frame.task_id == happening.task_id:
                state = place.state
                if isinstance(state, Task) and state.resource.integration is Integration.ACTIVITY:
                    self._activity_offered(place, happening)
                elif isinstance(happening, TaskFailed):
                    # What waits for a token or another execution fails as TaskFailed only after it was submitted.
                    waits = isinstance(state, Task) and bool(state.resource.pattern)
                    outcome = "SubmitFailed" if waits else "Failed"
                    self._task_failed(place, happening.error, happening.cause, outcome)
                elif isinstance(state, Task) and state.resource.pattern:
                    self._task_submitted(place, state, happening.output)
                else:
                    self._task_succeeded(place, happening.output)
                return

    def _activity_offered(self, place: Place, happening: TaskSucceeded | TaskFailed) -> None:
        """The task waits for a worker now, or cannot."""
        place.frame.phase = Phase.AWAIT
        if isinstance(happening, TaskFailed):
            place.frame.due_at_ms = None
            details = {"error": happening.error, "cause": happening.cause or ""}
            self._record(place, "ActivityScheduleFailed", details)
            self._state_failed(place, happening.error, happening.cause)

    def _awaited_came(self, happening: AwaitedSucceeded | AwaitedFailed | HeartbeatCame | ActivityTaken) -> None:
        """A token came back, perhaps before the call that sent it out did; or a nested execution ended."""
        for place in places(self.machine, self.state):
            frame = place.frame
            if frame.phase not in (Phase.TASK, Phase.AWAIT) or frame.task_id != happening.task_id:
                continue
            if isinstance(happening, AwaitedSucceeded):
                self._task_succeeded(place, happening.output)
            elif isinstance(happening, AwaitedFailed):
                self._task_failed(place, happening.error, happening.cause)
            else:
                if isinstance(happening, ActivityTaken):
                    worker = {} if happening.worker is None else {"workerName": happening.worker}
                    self._record(place, "ActivityStarted", worker)
                if frame.heartbeat_s:
                    self._set_limit(frame)
            return

    def _task_submitted(self, place: Place, state: Task, output: Json) -> None:
        """The call was made; its result is told, but the task goes on."""
        text = self._text(output)
        if too_large(text):
            self._task_failed(place, DATA_LIMIT_EXCEEDED, limit_cause(state.resource.resource_type))
            return
        place.frame.phase = Phase.AWAIT
        self._record_outcome(place, state, "Submitted", {"output": text})

    def _task_succeeded(self, place: Place, output: Json) -> None:
        state, frame = place.state, place.frame
        assert isinstance(state, Task)
        text = self._text(output)
        if too_large(text):
            by_arn = state.resource.integration in (Integration.FUNCTION_ARN, Integration.ACTIVITY)
            name = state.resource.arn if by_arn else state.resource.resource_type
            self._task_failed(place, DATA_LIMIT_EXCEEDED, limit_cause(name))
            return
        frame.due_at_ms = None
        self._record_outcome(place, state, "Succeeded", {"output": text})
        self._guard(place, self._finish_result, state, output)

    def _task_failed(self, place: Place, error: str | None, cause: str | None, outcome: str = "Failed") -> None:
        state = place.state
        assert isinstance(state, Task)
        place.frame.due_at_ms = None
        details = {name: text for name, text in (("error", error), ("cause", cause)) if text is not None}
        self._record_outcome(place, state, outcome, details)
        self._state_failed(place, error, cause)

    def _task_timed_out(self, place: Place, *, by_heartbeat: bool) -> None:
        """Fail with States.Timeout; a missing heartbeat is told so, too, but can be caught as States.HeartbeatTimeout."""
        state = place.state
        assert isinstance(state, Task)
        self._record_outcome(place, state, "TimedOut", {"error": TIMEOUT})
        self._state_failed(place, TIMEOUT, None, also=HEARTBEAT_TIMEOUT if by_heartbeat else None)

    def _record_outcome(self, place: Place, state: Task, outcome: str, details: dict[str, Any]) -> None:
        resource = state.resource
        if resource.integration is Integration.FUNCTION_ARN:
            self._record(place, f"LambdaFunction{outcome}", details)
        elif resource.integration is Integration.ACTIVITY:
            self._record(place, f"Activity{outcome}", details)
        else:
            kind = {"resourceType": resource.resource_type, "resource": resource.resource}
            self._record(place, f"Task{outcome}", {**kind, **details})
