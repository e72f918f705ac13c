"""Who counts files hears of each settlement once: also when a function that is retried writes the same failure three times."""

from entrepot import clock
from entrepot.database import Transaction
from entrepot.services.files.ports import OnSettled, Settled
from entrepot.services.files.record import FAILED, STATUSES, TRANSFERRING, UPLOADED

REMEMBERED_LIMIT = 10_000
"""Failed files that are remembered; of more, the oldest may be told again."""


class Settlements:
    """Tells `on_settled` of arrivals, deliveries and failures, after their commits."""

    def __init__(self, on_settled: OnSettled | None) -> None:
        self._on_settled = on_settled
        self._failed: dict[str, None] = {}
        """Files whose failure was told, oldest first. For the event loop's thread."""

    def tell(
        self, tx: Transaction, status: int, file_id: str, size_bytes: int, uploaded_at_ms: int | None, *,
        over_sftp: bool = False,
    ) -> None:  # fmt: skip
        """A file reached a status; `uploaded_at_ms` is None when it has just arrived. Being under way is no settlement."""
        on_settled = self._on_settled
        if on_settled is None or status == TRANSFERRING:
            return
        if status == UPLOADED and uploaded_at_ms is not None:  # It is tried again, and may fail again.
            tx.after_commit(lambda: self._failed.pop(file_id, None))
            return
        duration_ms = None if uploaded_at_ms is None else clock.now_ms() - uploaded_at_ms
        settled = Settled(STATUSES[status], size_bytes, duration_ms, over_sftp, file_id)

        def told() -> None:
            if status != FAILED:
                self._failed.pop(file_id, None)
            elif file_id in self._failed:
                return
            else:
                if len(self._failed) >= REMEMBERED_LIMIT:
                    del self._failed[next(iter(self._failed))]
                self._failed[file_id] = None
            on_settled(settled)

        tx.after_commit(told)
