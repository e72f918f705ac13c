"""The vocabulary of metrics: a metric's identity, and the periods in which its values are kept."""

from dataclasses import dataclass

RESOLUTIONS_S = {1: 3 * 3_600, 60: 15 * 86_400, 300: 63 * 86_400, 3_600: 455 * 86_400}
"""The periods in which values are kept, and for how long, in seconds: AWS's.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/cloudwatch_concepts.html#metrics-retention
"""

_RATED = ("Bytes", "Kilobytes", "Megabytes", "Gigabytes", "Terabytes", "Bits", "Kilobits", "Megabits", "Gigabits")

UNITS = frozenset(
    (
        *("Seconds", "Microseconds", "Milliseconds", "Percent", "Count", "Count/Second", "None"),
        *(unit + suffix for unit in (*_RATED, "Terabits") for suffix in ("", "/Second")),
    )
)
"""The units that AWS knows."""


@dataclass(frozen=True, slots=True, order=True)
class Metric:
    """A metric: namespace, name, and dimensions in the order of their names."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, namespace: str, name: str, **dimensions: str) -> "Metric":
        """Return the metric with these dimensions."""
        return cls(namespace, name, tuple(sorted(dimensions.items())))
