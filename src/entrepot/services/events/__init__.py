"""Amazon EventBridge: rules, their targets, and the durable delivery of every matching event.

Owns the pattern language, buses with their policies, rules and targets, the queue of deliveries and the dead letters, archives
and replays, connections and API destinations. It must not know what an event is about: S3 and others hand events in, targets
are operations of the gate. One exactly named execution per event, rule, target and attempt, whatever dies in between.
"""

from entrepot.services.events.connections import ConnectionParameters
from entrepot.services.events.delivery import Delivery, OnDelivery
from entrepot.services.events.operations import operations
from entrepot.services.events.pattern import EventPattern
from entrepot.services.events.schema import MIGRATIONS
from entrepot.services.events.service import Events

__all__ = ["MIGRATIONS", "ConnectionParameters", "Delivery", "EventPattern", "Events", "OnDelivery", "operations"]
