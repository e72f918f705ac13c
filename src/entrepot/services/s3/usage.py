"""What buckets hold: for the metrics that are measured once a day."""

from entrepot.database import Reader

BUCKETS_LIMIT = 1_000


def usage(reader: Reader) -> list[tuple[str, int, int]]:
    """Return (bucket, versions, bytes of all versions) for each bucket; a long read, over every version."""
    rows = reader.all(
        "SELECT b.name, count(v.sequence), coalesce(sum(v.size_bytes), 0) FROM s3_bucket b "
        "LEFT JOIN s3_version v ON v.bucket_id = b.bucket_id GROUP BY b.name ORDER BY b.name LIMIT ?",
        (BUCKETS_LIMIT,),
    )
    return [(row[0], row[1], row[2]) for row in rows]
