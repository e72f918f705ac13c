"""A power cut: the disk's image, copied at a random moment while files arrive, is mounted again and reconciled.

The stack lives on an ext4 in a loop-mounted image; what is still in ext4's page cache is not in that image. The image
lies on an XFS (in an image of its own), whose reflink copy is taken in one instant while the server works: exactly what
the disk held when the power went. Needs root, loop devices and xfsprogs.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.crash.rounds import Rounds
from tests.running import wait_for

DISK_BYTES = 400 << 20
HOST_BYTES = 2 << 30
"""Sizes of the two images; both are sparse files."""


def possible() -> str:
    """Return "" when this machine can do it, or why not."""
    if os.geteuid() != 0:
        return "power cuts need root, to mount a loop device"
    for tool in ("mkfs.ext4", "mkfs.xfs", "mount", "umount", "losetup"):
        if shutil.which(tool, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is None:
            return f"power cuts need {tool}"
    free = subprocess.run(["losetup", "--find"], capture_output=True, text=True)
    return "" if free.returncode == 0 else f"power cuts need a free loop device: {free.stderr.strip()}"


class Disk:
    """An image with a file system, mounted at a folder."""

    def __init__(self, image: Path, mount_point: Path) -> None:
        self.image = image
        self.mount_point = mount_point

    def make(self, kind: str, size_bytes: int, *options: str) -> None:
        with self.image.open("wb") as file:
            file.truncate(size_bytes)
        subprocess.run([f"mkfs.{kind}", "-q", *options, str(self.image)], check=True)

    def mount(self) -> None:
        self.mount_point.mkdir(exist_ok=True)
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.mount_point)], check=True)

    def unmount(self) -> None:
        # The workers of a killed server end a moment after it.
        def done() -> bool:
            return subprocess.run(["umount", str(self.mount_point)], capture_output=True).returncode == 0

        wait_for(done, deadline_s=15, what=f"the unmounting of {self.mount_point}")


class PowerCuts(Rounds):
    """Rounds whose death is a power cut: the server is killed, and the disk is what the copied image says."""

    def __init__(self, disk: Disk, seed: int) -> None:
        self.disk = disk
        super().__init__(disk.mount_point / "stack", seed, lambda line: print(line, flush=True))

    def one_round(self) -> None:
        self._cut_at_s = self.random.uniform(0.3, 1.5)
        super().one_round()

    def _next_point(self) -> str:
        return ""

    async def _uploads(self, duration_s: float) -> None:
        """Upload, and at the moment of the cut copy the image; only what was acknowledged before counts."""
        taken = threading.Thread(target=self._copy_image)
        taken.start()
        try:
            await super()._uploads(self._cut_at_s + 1.0)
        finally:
            taken.join()

    def _copy_image(self) -> None:
        time.sleep(self._cut_at_s)
        # Acknowledged before the copy: these must be on the disk. What comes while cp starts may be on it or not.
        self._at_cut = set(self.book.acknowledged)
        subprocess.run(
            ["cp", "--reflink=always", str(self.disk.image), f"{self.disk.image}.cut"],
            check=True,
        )

    def _die(self) -> None:
        super()._die()
        self.book.acknowledged = self._at_cut
        self.disk.unmount()
        Path(f"{self.disk.image}.cut").replace(self.disk.image)
        self.disk.mount()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if reason := possible():
        print(f"Skipped: {reason}.")
        return 0
    with tempfile.TemporaryDirectory(prefix="entrepot-power-cut-") as folder:
        run(Path(folder), arguments.rounds, arguments.seed)
    return 0


def run(folder: Path, rounds: int, seed: int) -> PowerCuts:
    """Run the rounds on an image in the folder; raise AssertionError on the first broken promise."""
    host = Disk(folder / "host.img", folder / "host")
    host.make("xfs", HOST_BYTES, "-m", "reflink=1")
    host.mount()
    disk = Disk(host.mount_point / "disk.img", folder / "disk")
    disk.make("ext4", DISK_BYTES, "-F")
    disk.mount()
    try:
        cuts = PowerCuts(disk, seed)
        try:
            cuts.run(rounds)
        except BaseException:
            print(cuts.stack.server_log()[-5000:])
            raise
        finally:
            if cuts.stack.process is not None:
                cuts.stack.kill()
        book = cuts.book
        print(
            f"{rounds} power cuts (seed {seed}): {len(book.sent)} files sent, {len(book.acknowledged)} acknowledged, none lost."
        )
        return cuts
    finally:
        disk.unmount()
        host.unmount()


if __name__ == "__main__":
    sys.exit(main())
