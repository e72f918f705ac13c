"""The tables of SNS.

A published message lies once in `sns_message` for as long as deliveries of it wait in `sns_delivery`.
"""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "sns",
        1,
        (
            # One row: the last number given out, for topics, subscriptions, messages and FIFO sequence numbers.
            "CREATE TABLE sns_counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
            "INSERT INTO sns_counter (name, value) VALUES ('number', 0)",
            # attributes: what was set, as a JSON object of AWS's names; tags likewise.
            """CREATE TABLE sns_topic (
                topic_name TEXT PRIMARY KEY,
                topic_id INTEGER NOT NULL,
                created_at_ms INTEGER NOT NULL,
                attributes TEXT NOT NULL,
                tags TEXT NOT NULL
            )""",
            "CREATE UNIQUE INDEX sns_topic_id ON sns_topic (topic_id)",
            # status: 0 pending, 1 confirmed, 2 unsubscribed (kept while its token can subscribe again).
            """CREATE TABLE sns_subscription (
                subscription_id INTEGER PRIMARY KEY,
                topic_id INTEGER NOT NULL,
                topic_name TEXT NOT NULL,
                uuid TEXT NOT NULL,
                protocol TEXT NOT NULL,
                endpoint TEXT NOT NULL,
                status INTEGER NOT NULL,
                principal TEXT NOT NULL,
                token TEXT NOT NULL,
                token_at_ms INTEGER NOT NULL,
                authenticated INTEGER NOT NULL,
                authenticate_on_unsubscribe INTEGER NOT NULL,
                attributes TEXT NOT NULL
            )""",
            "CREATE UNIQUE INDEX sns_subscription_uuid ON sns_subscription (uuid)",
            "CREATE UNIQUE INDEX sns_subscription_endpoint ON sns_subscription (topic_id, protocol, endpoint)",
            "CREATE INDEX sns_subscription_ending ON sns_subscription (token_at_ms) WHERE status <> 1",
            # content: JSON, see publishing.Message. waiting: how many deliveries still need it.
            """CREATE TABLE sns_message (
                message_id INTEGER PRIMARY KEY,
                content TEXT NOT NULL,
                waiting INTEGER NOT NULL
            )""",
            # message_id is 0 for a confirmation. kind: 0 Notification, 1 SubscriptionConfirmation,
            # 2 UnsubscribeConfirmation. failures: tries so far.
            """CREATE TABLE sns_delivery (
                delivery_id INTEGER PRIMARY KEY,
                subscription_id INTEGER NOT NULL,
                message_id INTEGER NOT NULL,
                kind INTEGER NOT NULL,
                queued_at_ms INTEGER NOT NULL,
                due_at_ms INTEGER NOT NULL,
                failures INTEGER NOT NULL
            )""",
            "CREATE INDEX sns_delivery_due ON sns_delivery (subscription_id, due_at_ms, delivery_id)",
            """CREATE TABLE sns_deduplication (
                topic_id INTEGER NOT NULL,
                deduplication_key TEXT NOT NULL,
                published_at_ms INTEGER NOT NULL,
                message_uuid TEXT NOT NULL,
                sequence INTEGER NOT NULL,
                PRIMARY KEY (topic_id, deduplication_key)
            )""",
            "CREATE INDEX sns_deduplication_age ON sns_deduplication (published_at_ms)",
        ),
    ),
)
