"""The tables of SQS.

A message belongs to a `queue_id`, not to a name: a queue that is deleted or purged leaves its id in `sqs_doomed`, and
its messages are swept away in small steps, out of everybody's sight.
"""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "sqs",
        1,
        (
            # One row: the last number given out; queue ids and sequence numbers only ever grow.
            "CREATE TABLE sqs_counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
            "INSERT INTO sqs_counter (name, value) VALUES ('sequence', 0)",
            # attributes: what was set, as a JSON object of AWS's names; tags likewise.
            """CREATE TABLE sqs_queue (
                queue_name TEXT PRIMARY KEY,
                queue_id INTEGER NOT NULL,
                created_at_ms INTEGER NOT NULL,
                modified_at_ms INTEGER NOT NULL,
                purged_at_ms INTEGER NOT NULL,
                attributes TEXT NOT NULL,
                tags TEXT NOT NULL
            )""",
            "CREATE UNIQUE INDEX sqs_queue_id ON sqs_queue (queue_id)",
            "CREATE TABLE sqs_doomed (queue_id INTEGER PRIMARY KEY)",
            # receipt: '' until the message is received, then the secret part of the newest receipt handle.
            # details: JSON of what is seldom asked for (attributes, sender, de-duplication id, source of a dead letter).
            """CREATE TABLE sqs_message (
                sequence INTEGER PRIMARY KEY,
                queue_id INTEGER NOT NULL,
                message_id TEXT NOT NULL,
                group_id TEXT NOT NULL,
                visible_at_ms INTEGER NOT NULL,
                sent_at_ms INTEGER NOT NULL,
                receive_count INTEGER NOT NULL,
                first_received_at_ms INTEGER NOT NULL,
                received_at_ms INTEGER NOT NULL,
                receipt TEXT NOT NULL,
                body TEXT NOT NULL,
                details TEXT NOT NULL
            )""",
            "CREATE INDEX sqs_message_visible ON sqs_message (queue_id, visible_at_ms, sequence)",
            "CREATE INDEX sqs_message_in_flight ON sqs_message (queue_id, group_id, visible_at_ms) WHERE receipt <> ''",
            # The groups of FIFO queues that have messages: from when the first of them may be received.
            """CREATE TABLE sqs_group (
                queue_id INTEGER NOT NULL,
                group_id TEXT NOT NULL,
                available_at_ms INTEGER NOT NULL,
                PRIMARY KEY (queue_id, group_id)
            )""",
            "CREATE INDEX sqs_group_available ON sqs_group (queue_id, available_at_ms)",
            "CREATE INDEX sqs_message_group ON sqs_message (queue_id, group_id, sequence) WHERE group_id <> ''",
            """CREATE TABLE sqs_deduplication (
                queue_id INTEGER NOT NULL,
                deduplication_key TEXT NOT NULL,
                sent_at_ms INTEGER NOT NULL,
                message_id TEXT NOT NULL,
                sequence INTEGER NOT NULL,
                PRIMARY KEY (queue_id, deduplication_key)
            )""",
            "CREATE INDEX sqs_deduplication_sent ON sqs_deduplication (sent_at_ms)",
            # What a FIFO ReceiveMessage with a ReceiveRequestAttemptId answered, as JSON [[sequence, receipt], …].
            """CREATE TABLE sqs_attempt (
                queue_id INTEGER NOT NULL,
                attempt_id TEXT NOT NULL,
                received_at_ms INTEGER NOT NULL,
                messages TEXT NOT NULL,
                PRIMARY KEY (queue_id, attempt_id)
            )""",
            "CREATE INDEX sqs_attempt_received ON sqs_attempt (received_at_ms)",
        ),
    ),
)
