"""A power cut: the disk's image, copied at a random moment while files arrive, is mounted again and reconciled.

The stack lives on an ext4 in a loop-mounted image; what is still in ext4's page cache is not in that image. The image
lies on an XFS (in an image of its own), whose reflink copy is taken in one instant while the server works: exactly what
the disk held when the power went. Needs root, loop devices and xfsprogs.
"""

import argparse
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.crash import lives
from tests.crash.clients import Api
from tests.crash.rounds import UPLOADING_S, Rounds
from tests.running import wait_for

DISK_BYTES = 4 << 30
HOST_BYTES = 12 << 30
"""Sizes of the two images; both are sparse files."""

FUNCTION_PROBABILITY = 0.3

WRITTEN_HERE = ("rules/copy.json", "workflows/copy.asl.json", "policies/everything.json", "stack.toml")
"""What the rounds add to a new stack; everything else was made durable by `init`."""


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
        for path in (self.stack.folder / name for name in WRITTEN_HERE):
            with path.open("rb") as file:  # What `init` wrote is durable, what the rounds added must be made so.
                os.fsync(file.fileno())

    def one_round(self) -> str:
        self.stack.start()
        api = Api(self.stack)
        assert self._reconcile(api), "the server died by itself"
        self._duration_s = self.random.uniform(*UPLOADING_S)
        asyncio.run(self._upload_until_death(api, with_function=self.random.random() < FUNCTION_PROBABILITY))
        lives.bury(self.stack)
        self.disk.unmount()
        Path(f"{self.disk.image}.cut").replace(self.disk.image)
        self.disk.mount()
        return "of a power cut"

    def _kill(self) -> None:
        """Copy the image, then kill; of what was acknowledged, only what was before the copy must be on the disk."""
        cut_s = time.monotonic()
        subprocess.run(["cp", "--reflink=always", str(self.disk.image), f"{self.disk.image}.cut"], check=True)
        super()._kill()
        self._cut_s = cut_s

    async def _upload_until_death(self, api: Api, *, with_function: bool) -> None:
        await super()._upload_until_death(api, with_function=with_function)
        self.book.forget_since(self._cut_s)


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
        sent, acknowledged = cuts.book.count()
        print(
            f"{rounds} power cuts (seed {seed}): {sent} uploads begun, {acknowledged} acknowledged before the cut, none lost."
        )
        return cuts
    finally:
        disk.unmount()
        host.unmount()


if __name__ == "__main__":
    sys.exit(main())
