"""The state of a metric alarm from its values: M out of N, and what missing values mean.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from entrepot.services.cloudwatch.alarms.alarm import StateValue

EXTRA_PERIODS = 2
"""Periods before the N evaluated ones that stand in for missing values, as AWS retrieves more than it evaluates."""

TreatMissingData: TypeAlias = Literal["missing", "ignore", "breaching", "notBreaching"]

COMPARISONS: Mapping[str, tuple[Callable[[float, float], bool], str]] = {
    "GreaterThanOrEqualToThreshold": (operator.ge, "greater than or equal to"),
    "GreaterThanThreshold": (operator.gt, "greater than"),
    "LessThanThreshold": (operator.lt, "less than"),
    "LessThanOrEqualToThreshold": (operator.le, "less than or equal to"),
}
"""AWS's comparison operators, and how reasons word them."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When to raise: at least `datapoints_to_alarm` (M) of `evaluation_periods` (N) values break the threshold."""

    comparison: str
    threshold: float
    evaluation_periods: int
    datapoints_to_alarm: int
    treat_missing_data: TreatMissingData

    def breaks(self, value: float) -> bool:
        """Whether a value breaks the threshold."""
        return COMPARISONS[self.comparison][0](value, self.threshold)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state, or None to keep the one there is; the values that decided, newest first; and how many were missing."""

    state: StateValue | None
    decisive: Sequence[tuple[int, float]]
    missing: int


def judge(rule: Rule, periods: Sequence[tuple[int, float | None]]) -> Verdict:
    """Return the state from the values of the last N + EXTRA_PERIODS periods, oldest first; None where there is none."""
    wanted = rule.evaluation_periods
    known = [(at_s, value) for at_s, value in periods if value is not None][-wanted:]
    decisive = list(reversed(known))
    missing = wanted - len(known)
    breaking = sum(1 for _, value in known if rule.breaks(value))
    worst = "ALARM" if breaking + missing >= rule.datapoints_to_alarm else "OK"
    best = "ALARM" if breaking >= rule.datapoints_to_alarm else "OK"
    if not missing:
        return Verdict(best, decisive, 0)  # type: ignore[arg-type]
    match rule.treat_missing_data:
        case "breaching":
            return Verdict(worst, decisive, missing)  # type: ignore[arg-type]
        case "notBreaching":
            return Verdict(best, decisive, missing)  # type: ignore[arg-type]
        case "ignore":
            return Verdict(best if best == worst else None, decisive, missing)  # type: ignore[arg-type]
    if not known:
        return Verdict("INSUFFICIENT_DATA", decisive, missing)
    # Values that are missing count as breaking only beside one that is: the alarm goes off early rather than late.
    return Verdict("ALARM" if breaking and worst == "ALARM" else "OK", decisive, missing)
