"""CloudWatch: metrics with their values, alarms, dashboards.

This room owns the file of metric values, the tables of alarms and dashboards, metric math and SEARCH, and the watch that
judges alarms. What an alarm sets off (a topic, a function, an event) goes through typed callables.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/Welcome.html
"""

from entrepot.services.cloudwatch.metrics import Metric
from entrepot.services.cloudwatch.operations import operations
from entrepot.services.cloudwatch.schema import MIGRATIONS
from entrepot.services.cloudwatch.service import CloudWatch

__all__ = ["MIGRATIONS", "CloudWatch", "Metric", "operations"]
