"""Amazon SNS: topics, subscriptions, messages and their way out.

Owns topics (`topics.py`), subscriptions (`subscriptions.py`, `filters.py`), messages (`messages.py`), the outbox and its
deliverers (`outbox.py`, `lanes.py`, `delivering.py`, `channels.py`, `retries.py`), and what receivers can verify
(`envelopes.py`, `signing.py`, `public_links.py`). To queues a message goes within Publish's transaction; what leaves the
ledger waits there in a row of its own until it is delivered or given up. It must not know who publishes.
"""

from entrepot.services.sns import public_links
from entrepot.services.sns.channels import MailServer
from entrepot.services.sns.operations import operations
from entrepot.services.sns.schema import MIGRATIONS
from entrepot.services.sns.service import SNS

__all__ = ["MIGRATIONS", "SNS", "MailServer", "operations", "public_links"]
