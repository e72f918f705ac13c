"""Stock SFTP clients behind one vocabulary, so that each operation can be tried with each client.

A method that a client lacks is absent here too; a failure raises. Paths are relative to the user's home.
"""

import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import asyncssh
import paramiko

from tests.running import Stack

TIMEOUT_S = 60


class Client:
    """One client program or library. `needs` is what must be installed; `package` is its Debian package."""

    name = ""
    needs = ""
    package = ""

    def __init__(self, stack: Stack, scratch: Path) -> None:
        self.stack = stack
        self.scratch = scratch
        self.key = stack.folder / "keys" / "demo"
        self.prepare()

    @classmethod
    def missing(cls) -> bool:
        """Return whether the program is not installed."""
        return bool(cls.needs) and shutil.which(cls.needs) is None

    def prepare(self) -> None:
        """Make what the client needs once (a key in its own format)."""

    def run(self, command: list[str], text: str | None = None) -> str:
        """Run a command; return its output; raise with its output when it fails."""
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=self.scratch)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: exit code {done.returncode}\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done.stdout


class OpenSSH(Client):
    """OpenSSH's sftp in batch mode."""

    name = "OpenSSH sftp"
    needs = "sftp"
    package = "openssh-client"

    def batch(self, *commands: str) -> str:
        return self.run(["sftp", *self.stack.ssh_options(), "-b", "-", "demo@127.0.0.1"], "\n".join(commands) + "\n")

    def put(self, local: Path, remote: str) -> None:
        self.batch(f'put "{local}" "{remote}"')

    def put_keeping_time(self, local: Path, remote: str) -> None:
        self.batch(f'put -p "{local}" "{remote}"')

    def get(self, remote: str, local: Path) -> None:
        self.batch(f'get "{remote}" "{local}"')

    def ls(self, remote: str) -> set[str]:
        lines = self.batch(f'ls -1 "{remote}"').splitlines()
        return {line.rpartition("/")[2] for line in lines if not line.startswith("sftp>")}

    def mkdir(self, remote: str) -> None:
        self.batch(f'mkdir "{remote}"')

    def rmdir(self, remote: str) -> None:
        self.batch(f'rmdir "{remote}"')

    def remove(self, remote: str) -> None:
        self.batch(f'rm "{remote}"')

    def rename(self, old: str, new: str) -> None:
        self.batch(f'rename "{old}" "{new}"')

    def put_tree(self, local: Path, remote: str) -> None:
        self.batch(f'put -R "{local}" "{remote}"')

    def resume_get(self, remote: str, local: Path) -> None:
        self.batch(f'reget "{remote}" "{local}"')

    def resume_put(self, local: Path, remote: str) -> None:
        self.batch(f'reput "{local}" "{remote}"')


class Scp(Client):
    """OpenSSH's scp, which speaks SFTP since 9.0."""

    name = "OpenSSH scp"
    needs = "scp"
    package = "openssh-client"

    def scp(self, *words: str) -> None:
        self.run(["scp", *self.stack.ssh_options(), *words])

    def put(self, local: Path, remote: str) -> None:
        self.scp(str(local), f"demo@127.0.0.1:{remote}")

    def put_keeping_time(self, local: Path, remote: str) -> None:
        self.scp("-p", str(local), f"demo@127.0.0.1:{remote}")

    def get(self, remote: str, local: Path) -> None:
        self.scp(f"demo@127.0.0.1:{remote}", str(local))

    def put_tree(self, local: Path, remote: str) -> None:
        self.scp("-r", str(local), f"demo@127.0.0.1:{remote}")


class Lftp(Client):
    """lftp, which runs ssh and speaks SFTP itself."""

    name = "lftp"
    needs = "lftp"
    package = "lftp"

    def lftp(self, *commands: str) -> str:
        program = " ".join(["ssh", "-a", "-x", *self.stack.ssh_options()])
        script = [
            "set cmd:fail-exit yes",
            "set net:max-retries 1",
            "set net:timeout 20",
            "set sftp:charset utf-8",
            "set file:charset utf-8",
            f"set sftp:connect-program '{program}'",
            f"open -u demo,x sftp://127.0.0.1:{self.stack.sftp_port}",
            *commands,
        ]
        return self.run(["lftp", "--norc", "-c", "; ".join(script)])

    def put(self, local: Path, remote: str) -> None:
        self.lftp(f'put "{local}" -o "{remote}"')

    def put_keeping_time(self, local: Path, remote: str) -> None:
        self.put(local, remote)  # lftp always keeps the time

    def get(self, remote: str, local: Path) -> None:
        self.lftp(f'get "{remote}" -o "{local}"')

    def ls(self, remote: str) -> set[str]:
        return {line.strip().rstrip("/") for line in self.lftp(f'cd "{remote}"', "cls -1").splitlines() if line.strip()}

    def mkdir(self, remote: str) -> None:
        self.lftp(f'mkdir "{remote}"')

    def rmdir(self, remote: str) -> None:
        self.lftp(f'rmdir "{remote}"')

    def remove(self, remote: str) -> None:
        self.lftp(f'rm "{remote}"')

    def rename(self, old: str, new: str) -> None:
        self.lftp(f'mv "{old}" "{new}"')

    def put_tree(self, local: Path, remote: str) -> None:
        self.lftp(f'mirror -R "{local}" "{remote}"')

    def resume_get(self, remote: str, local: Path) -> None:
        self.lftp(f'get -c "{remote}" -o "{local}"')

    def resume_put(self, local: Path, remote: str) -> None:
        self.lftp(f'put -c "{local}" -o "{remote}"')


class Curl(Client):
    """curl with libssh2."""

    name = "curl"
    needs = "curl"
    package = "curl"

    def curl(self, remote: str, *words: str) -> str:
        url = f"sftp://demo@127.0.0.1:{self.stack.sftp_port}/~/{quote(remote)}"
        command = ["curl", "-q", "-sS", "--insecure", "--key", str(self.key), "--pubkey", f"{self.key}.pub"]
        return self.run([*command, *words, url])

    def put(self, local: Path, remote: str) -> None:
        self.curl(remote, "-T", str(local))

    def get(self, remote: str, local: Path) -> None:
        self.curl(remote, "-o", str(local))

    def ls(self, remote: str) -> set[str]:
        return set(self.curl(f"{remote}/", "--list-only").splitlines()) - {".", ".."}

    def quote(self, *commands: str) -> None:
        self.curl("", *(word for command in commands for word in ("-Q", command)), "-o", "/dev/null")

    def mkdir(self, remote: str) -> None:
        self.quote(f'mkdir "{remote}"')

    def rmdir(self, remote: str) -> None:
        self.quote(f'rmdir "{remote}"')

    def remove(self, remote: str) -> None:
        self.quote(f'rm "{remote}"')

    def rename(self, old: str, new: str) -> None:
        self.quote(f'rename "{old}" "{new}"')

    def resume_get(self, remote: str, local: Path) -> None:
        self.curl(remote, "-C", "-", "-o", str(local))

    def resume_put(self, local: Path, remote: str) -> None:
        self.curl(remote, "-C", "-", "-T", str(local))


class Rclone(Client):
    """rclone's sftp backend."""

    name = "rclone"
    needs = "rclone"
    package = "rclone"

    def rclone(self, *words: str) -> str:
        return self.run(["rclone", "--config", str(self.scratch / "rclone.conf"), "--retries", "1", *words])

    def place(self, remote: str) -> str:
        options = f"host=127.0.0.1,port={self.stack.sftp_port},user=demo,key_file='{self.key}',shell_type=none"
        return f":sftp,{options}:{remote}"

    def put(self, local: Path, remote: str) -> None:
        self.rclone("copyto", "--ignore-times", str(local), self.place(remote))

    def put_keeping_time(self, local: Path, remote: str) -> None:
        self.put(local, remote)  # rclone always keeps the time

    def get(self, remote: str, local: Path) -> None:
        self.rclone("copyto", "--ignore-times", self.place(remote), str(local))

    def ls(self, remote: str) -> set[str]:
        return {line.rstrip("/") for line in self.rclone("lsf", self.place(remote)).splitlines()}

    def mkdir(self, remote: str) -> None:
        self.rclone("mkdir", self.place(remote))

    def rmdir(self, remote: str) -> None:
        self.rclone("rmdir", self.place(remote))

    def remove(self, remote: str) -> None:
        self.rclone("deletefile", self.place(remote))

    def rename(self, old: str, new: str) -> None:
        self.rclone("moveto", self.place(old), self.place(new))

    def put_tree(self, local: Path, remote: str) -> None:
        self.rclone("copy", str(local), self.place(remote))


class Psftp(Client):
    """PuTTY's psftp."""

    name = "PuTTY psftp"
    needs = "psftp"
    package = "putty-tools"

    def prepare(self) -> None:
        self.ppk = self.scratch / "demo.ppk"
        self.run(["puttygen", str(self.key), "-O", "private", "-o", str(self.ppk)])
        host_key = asyncssh.read_public_key(self.stack.folder / "keys" / "ssh_host_ed25519_key.pub")
        self.fingerprint = host_key.get_fingerprint()

    def batch(self, *commands: str) -> str:
        command = ["psftp", "-batch", "-P", str(self.stack.sftp_port), "-i", str(self.ppk), "-b", "/dev/stdin"]
        return self.run([*command, "-hostkey", self.fingerprint, "demo@127.0.0.1"], "\n".join(commands) + "\n")

    def put(self, local: Path, remote: str) -> None:
        self.batch(f'put "{local}" "{remote}"')

    def get(self, remote: str, local: Path) -> None:
        self.batch(f'get "{remote}" "{local}"')

    def ls(self, remote: str) -> set[str]:
        lines = self.batch(f'ls "{remote}"').splitlines()
        return {line.split(maxsplit=8)[8] for line in lines if len(line.split(maxsplit=8)) == 9} - {".", ".."}

    def mkdir(self, remote: str) -> None:
        self.batch(f'mkdir "{remote}"')

    def rmdir(self, remote: str) -> None:
        self.batch(f'rmdir "{remote}"')

    def remove(self, remote: str) -> None:
        self.batch(f'rm "{remote}"')

    def rename(self, old: str, new: str) -> None:
        self.batch(f'mv "{old}" "{new}"')

    def put_tree(self, local: Path, remote: str) -> None:
        self.batch(f'put -r "{local}" "{remote}"')

    def resume_get(self, remote: str, local: Path) -> None:
        self.batch(f'reget "{remote}" "{local}"')

    def resume_put(self, local: Path, remote: str) -> None:
        self.batch(f'reput "{local}" "{remote}"')


class Paramiko(Client):
    """The library paramiko."""

    name = "paramiko"

    def sftp(self) -> paramiko.SFTPClient:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect(
            "127.0.0.1",
            self.stack.sftp_port,
            "demo",
            key_filename=str(self.key),
            allow_agent=False,
            look_for_keys=False,
        )
        self.open = client
        return client.open_sftp()

    def put(self, local: Path, remote: str) -> None:
        with self.sftp() as sftp:
            sftp.put(str(local), remote)
        self.open.close()

    def put_keeping_time(self, local: Path, remote: str) -> None:
        with self.sftp() as sftp:
            sftp.put(str(local), remote)
            sftp.utime(remote, (int(local.stat().st_atime), int(local.stat().st_mtime)))
        self.open.close()

    def get(self, remote: str, local: Path) -> None:
        with self.sftp() as sftp:
            sftp.get(remote, str(local))
        self.open.close()

    def ls(self, remote: str) -> set[str]:
        with self.sftp() as sftp:
            found = set(sftp.listdir(remote))
        self.open.close()
        return found

    def mkdir(self, remote: str) -> None:
        with self.sftp() as sftp:
            sftp.mkdir(remote)
        self.open.close()

    def rmdir(self, remote: str) -> None:
        with self.sftp() as sftp:
            sftp.rmdir(remote)
        self.open.close()

    def remove(self, remote: str) -> None:
        with self.sftp() as sftp:
            sftp.remove(remote)
        self.open.close()

    def rename(self, old: str, new: str) -> None:
        with self.sftp() as sftp:
            sftp.posix_rename(old, new)
        self.open.close()


class WinSCP(Paramiko):
    """WinSCP's way to upload, spoken through paramiko: to NAME.filepart, appending when resumed, then a rename."""

    name = "WinSCP's transfer"

    def put(self, local: Path, remote: str) -> None:
        with self.sftp() as sftp:
            part = f"{remote}.filepart"
            with sftp.open(part, "wb") as file:
                file.write(local.read_bytes())
            sftp.posix_rename(part, remote)
        self.open.close()

    def put_keeping_time(self, local: Path, remote: str) -> None:
        self.put(local, remote)
        with self.sftp() as sftp:
            sftp.utime(remote, (int(local.stat().st_atime), int(local.stat().st_mtime)))
        self.open.close()

    def resume_put(self, local: Path, remote: str) -> None:
        content = local.read_bytes()
        with self.sftp() as sftp:
            part = f"{remote}.filepart"
            with sftp.open(part, "wb") as file:
                file.write(content[: len(content) // 3])
            size = sftp.stat(part).st_size
            assert size == len(content) // 3
            with sftp.open(part, "ab") as file:
                file.write(content[size:])
            sftp.posix_rename(part, remote)
        self.open.close()


CLIENTS: tuple[type[Client], ...] = (OpenSSH, Scp, Lftp, Curl, Rclone, Psftp, Paramiko, WinSCP)
