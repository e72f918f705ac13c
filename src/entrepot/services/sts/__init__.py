"""STS: who am I, and temporary credentials. What it issues comes from IAM through callables; it has no tables."""

from entrepot.services.sts.operations import operations
from entrepot.services.sts.sts import STS

__all__ = ["STS", "operations"]
