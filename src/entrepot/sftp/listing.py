"""An open folder: pages of names, each read by a seek, so that a million keys cost no million rows."""

from entrepot.database import Reader
from entrepot.services.s3.listing import Page
from entrepot.sftp.paths import Place, has_control_characters
from entrepot.sftp.session import Session
from entrepot.sftp.settings import NAMES_PER_READDIR
from entrepot.sftp.wire import Stat


class Listing:
    """What READDIR returns, page by page. Nothing is locked: what changes meanwhile may or may not appear."""

    def __init__(self, session: Session, place: Place) -> None:
        self.session = session
        self.place = place
        self._after = ""
        self._ended = False
        self._entries_sent = False
        self._files: list[str] = []

    async def page(self) -> list[tuple[bytes, Stat]]:
        """Return some more names in order; none at the end."""
        names: list[tuple[bytes, Stat]] = []
        if not self._entries_sent:
            self._entries_sent = True
            names = [(name.encode(), Stat(True, 0, 0)) for name in sorted(self.place.entries)]
        while not names and not self._ended:
            names = await self._read()
        return names

    async def _read(self) -> list[tuple[bytes, Stat]]:
        if self.place.bucket is None:
            self._ended = True
            return []
        bucket, prefix, after = self.place.bucket, self.place.folder, self._after
        site = self.session.site

        def read(reader: Reader) -> Page:
            return site.s3.list_objects(
                reader, bucket, prefix=prefix, delimiter="/", after=after, limit=NAMES_PER_READDIR
            )

        page = await site.database.read(read)
        if page.next_after is None:
            self._ended = True
        else:
            self._after = page.next_after
        return self._names(page, len(prefix))

    def _names(self, page: Page, cut: int) -> list[tuple[bytes, Stat]]:
        """Return the names of a page in order; those that SFTP cannot say are passed over."""
        folders = [(prefix, None) for prefix in page.common_prefixes]
        found = sorted([*folders, *((entry.key, entry) for entry in page.objects)], key=lambda item: item[0])
        names = []
        for key, entry in found:
            name = key[cut:] if entry is not None else key[cut:-1]
            if entry is None and self._is_file(name):
                continue
            if name in ("", ".", "..") or name in self.place.entries or has_control_characters(name):
                continue
            if entry is None:
                names.append((name.encode(), Stat(True, 0, 0)))
            else:
                self._remember(name)
                names.append((name.encode(), Stat(False, entry.size_bytes, entry.mtime_ms // 1000)))
        return names

    def _remember(self, name: str) -> None:
        """Keep the files whose name is the start of this one, and this one.

        `a` comes before `a-b` and before `a/`: a name that is both, file and folder, is to appear once, as the file.
        """
        while self._files and not name.startswith(self._files[-1]):
            self._files.pop()
        self._files.append(name)

    def _is_file(self, name: str) -> bool:
        return name in self._files
