"""`stack.toml` → resources."""

from entrepot.stack.stack import MIGRATIONS, Services, Stack

__all__ = ["MIGRATIONS", "Services", "Stack"]
