"""Subscription filters' deliveries: to functions, and to the `_bulk` endpoint of OpenSearch or Elasticsearch.

What is to be delivered is in the log store, written in the same transaction as the events themselves, and deleted when the
destination has it: a crash loses none of it, and repeats one batch at most.
"""

from entrepot.services.logs.subscriptions.deliveries import DELIVERY_LOG_GROUP, Deliveries

__all__ = ["DELIVERY_LOG_GROUP", "Deliveries"]
