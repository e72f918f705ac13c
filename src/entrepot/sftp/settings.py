"""Every limit of the SFTP server, with its default. `[sftp]` of stack.toml has these fields."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SFTPSettings:
    """Where the server listens and what it allows."""

    host: str = "127.0.0.1"
    """The address to listen on. Loopback unless told otherwise."""

    port: int = 2222
    """The port; 0 means any free one."""

    host_keys: tuple[str, ...] = ()
    """Files of private host keys (OpenSSH format): at least one; ed25519, ECDSA or RSA of 3,072 bits and more."""

    reuse_port: bool = False
    """Whether several processes listen on the same port (`up --workers N`)."""

    # ── before login ─────────────────────────────────────────────────────────────────────────────────────────────

    login_grace_s: float = 30
    """A connection that has not logged in by then is closed (OpenSSH: LoginGraceTime)."""

    authentication_attempts: int = 6
    """Refused attempts after which a connection is closed (OpenSSH: MaxAuthTries)."""

    startups_begin: int = 10
    startups_rate_percent: int = 30
    startups_full: int = 100
    """Connections that have not logged in: from `begin` on some are refused at random, `rate` percent at first, growing
    to all at `full` (OpenSSH: MaxStartups 10:30:100)."""

    penalty_refused_key_s: float = 5
    penalty_no_attempt_s: float = 1
    penalty_grace_exceeded_s: float = 10
    """What a source address is charged for a refused key, for leaving without an attempt, for running out of time."""

    penalty_minimum_s: float = 15
    penalty_maximum_s: float = 600
    """A source is refused while its charges add up to the minimum at least; they are forgotten second by second and
    never exceed the maximum (OpenSSH: PerSourcePenalties)."""

    penalty_sources: int = 65_536
    """Most source addresses remembered; the least charged give way. IPv6 addresses count by /64."""

    penalty_exempt: tuple[str, ...] = ()
    """Networks that are never penalised, such as `10.0.0.0/8` of a load balancer."""

    # ── after login ──────────────────────────────────────────────────────────────────────────────────────────────

    connections: int = 1000
    """Most connections at once."""

    connections_per_source: int = 200
    """Most connections at once of one source address."""

    sessions_per_user: int = 64
    """Most sessions of a user at once, in all processes together."""

    channels_per_session: int = 10
    """Most SFTP channels in one connection (OpenSSH: MaxSessions)."""

    handles_per_session: int = 256
    """Most files and folders open at once in one channel."""

    queued_bytes_per_session: int = 1 << 20
    """Requests taken from the wire and not yet worked on; beyond it the client is made to wait."""

    in_flight_bytes_per_user: int = 32 << 20
    """The same, over all sessions of a user."""

    idle_timeout_s: float = 1800
    """A session without a request for that long is closed."""

    keepalive_interval_s: float = 60
    keepalive_count: int = 3
    """A peer that leaves that many keep-alives unanswered is taken for dead."""

    rename_limit: int = 100_000
    """Most objects that one rename of a folder moves; a larger folder is refused before anything is moved."""

    drain_timeout_s: float = 20
    """How long `stop` waits for files that are open."""


WINDOW_BYTES = 2 << 20
"""The SSH receive window of a channel: the most that waits in the connection while requests are worked on."""

SSH_PACKET_LIMIT_BYTES = 256 << 10
"""The largest SSH data packet that is accepted; OpenSSH's own limit."""

SFTP_PACKET_LIMIT_BYTES = 256 << 10
"""The largest SFTP packet that is accepted (OpenSSH: SFTP_MAX_MSG_LENGTH)."""

READ_LIMIT_BYTES = SFTP_PACKET_LIMIT_BYTES - 1024
WRITE_LIMIT_BYTES = SFTP_PACKET_LIMIT_BYTES - 1024
"""The most that one READ answers and one WRITE carries, as limits@openssh.com says."""

READ_AHEAD_BYTES = 512 << 10
"""A download is read from the store in blocks of this size, one of them ahead of the client."""

NAMES_PER_READDIR = 200
"""Most names in one reply to READDIR."""
