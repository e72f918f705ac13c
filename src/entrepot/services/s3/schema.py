"""The tables of S3: buckets, contents, versions of objects, multipart uploads, and content that waits for collection.

`s3_version` holds one small row a version, so that a listing reads few pages; what a version contains is a row of
`s3_content`, which copies share. A content lives as long as a version or a part names it.
"""

from entrepot.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "s3",
        1,
        (
            # versioning: '' (never enabled), 'Enabled' or 'Suspended', as AWS spells it.
            """CREATE TABLE s3_bucket (
                bucket_id INTEGER PRIMARY KEY,
                name TEXT NOT NULL UNIQUE,
                created_at_ms INTEGER NOT NULL,
                versioning TEXT NOT NULL,
                event_bridge INTEGER NOT NULL
            )""",
            # The last sequence that was given out. It only grows, also when the newest version is deleted.
            "CREATE TABLE s3_sequence (name TEXT PRIMARY KEY, value INTEGER NOT NULL)",
            "INSERT INTO s3_sequence (name, value) VALUES ('version', 0)",
            # Either blob_id or data is set. Small content rides in the row: one fsync for content and name.
            """CREATE TABLE s3_content (
                content_id INTEGER PRIMARY KEY,
                size_bytes INTEGER NOT NULL,
                sha256 BLOB NOT NULL,
                blob_id TEXT,
                data BLOB
            )""",
            "CREATE UNIQUE INDEX s3_content_blob ON s3_content (blob_id) WHERE blob_id IS NOT NULL",
            # content_id is NULL in a delete marker. versioned = 0 is AWS's version "null".
            """CREATE TABLE s3_version (
                sequence INTEGER PRIMARY KEY,
                bucket_id INTEGER NOT NULL,
                key TEXT NOT NULL,
                versioned INTEGER NOT NULL,
                content_id INTEGER,
                size_bytes INTEGER NOT NULL,
                etag TEXT NOT NULL,
                modified_at_ms INTEGER NOT NULL,
                mtime_ms INTEGER,
                attributes TEXT
            )""",
            "CREATE UNIQUE INDEX s3_version_key ON s3_version (bucket_id, key, sequence DESC)",
            "CREATE INDEX s3_version_content ON s3_version (content_id) WHERE content_id IS NOT NULL",
            """CREATE TABLE s3_upload (
                upload_id TEXT PRIMARY KEY,
                bucket_id INTEGER NOT NULL,
                key TEXT NOT NULL,
                initiated_at_ms INTEGER NOT NULL,
                attributes TEXT,
                checksum_algorithm TEXT,
                checksum_type TEXT
            )""",
            "CREATE INDEX s3_upload_key ON s3_upload (bucket_id, key, upload_id)",
            """CREATE TABLE s3_part (
                upload_id TEXT NOT NULL,
                number INTEGER NOT NULL,
                content_id INTEGER NOT NULL,
                size_bytes INTEGER NOT NULL,
                etag TEXT NOT NULL,
                modified_at_ms INTEGER NOT NULL,
                checksum TEXT,
                PRIMARY KEY (upload_id, number)
            )""",
            "CREATE INDEX s3_part_content ON s3_part (content_id)",
            # Blobs that nothing names any more. doomed = 1: their file is being deleted, nobody may name them again.
            """CREATE TABLE s3_garbage (
                blob_id TEXT PRIMARY KEY,
                due_at_ms INTEGER NOT NULL,
                doomed INTEGER NOT NULL
            )""",
            "CREATE INDEX s3_garbage_due ON s3_garbage (due_at_ms)",
        ),
    ),
)
