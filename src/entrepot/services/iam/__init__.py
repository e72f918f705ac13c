"""IAM: roles, policies, access keys, and the one decision who may do what.

This room owns policy documents and their evaluation (`policy.py`, `conditions.py`, `globs.py`, `evaluate.py`), roles
and keys (`roles.py`, `credentials.py`, `trust.py`), policies of resources (`resource_policy.py`) and the services' own
rights (`service_linked.py`).
It never touches the resources that it decides about.
"""

from entrepot.services.iam.iam import IAM, Audit
from entrepot.services.iam.operations import operations
from entrepot.services.iam.resource_policy import admits, check_resource_policy
from entrepot.services.iam.schema import MIGRATIONS

__all__ = ["IAM", "MIGRATIONS", "Audit", "admits", "check_resource_policy", "operations"]
