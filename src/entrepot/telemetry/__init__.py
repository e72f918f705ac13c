"""Telemetry: what happens, counted for CloudWatch and Prometheus.

Owns the list of what is measured. Rooms report facts through typed callables that the composition passes in; what is counted
is counted after its commit.
"""

from entrepot.telemetry.counts import Levels, Telemetry, Usage
from entrepot.telemetry.tracing import Tracing, exporter_to

__all__ = ["Levels", "Telemetry", "Tracing", "Usage", "exporter_to"]
