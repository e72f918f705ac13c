"""Expectations: files that should arrive by a time of day, and what came of it.

Owns the expectations and one outcome for each of their windows. It must not look for files itself: who records one tells it,
in the same transaction.
"""

from entrepot.services.expectations.operations import operations
from entrepot.services.expectations.outcomes import Arrival, Kind
from entrepot.services.expectations.schema import MIGRATIONS
from entrepot.services.expectations.service import Expectations

__all__ = ["MIGRATIONS", "Arrival", "Expectations", "Kind", "operations"]
