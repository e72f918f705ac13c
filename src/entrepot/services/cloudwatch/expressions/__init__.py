"""Metric math and SEARCH: the expressions of GetMetricData and of alarms.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

from entrepot.services.cloudwatch.expressions.evaluate import Evaluation, Series, evaluate
from entrepot.services.cloudwatch.expressions.parse import ExpressionError, identifiers, parse_expression

__all__ = ["Evaluation", "ExpressionError", "Series", "evaluate", "identifiers", "parse_expression"]
