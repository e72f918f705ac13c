"""The algorithms of AWS's TransferSecurityPolicy-2025-03, in the order of preference.

Source: https://docs.aws.amazon.com/transfer/latest/userguide/security-policies.html

Two choices beyond the list. `diffie-hellman-group-exchange-sha256` is left out: a client could ask for groups that
ssh-audit fails, and every client that has it has a fixed group, too. `chacha20-poly1305@openssh.com` is not in AWS's
list (Terrapin, CVE-2023-48795), hence not here, though strict key exchange would make it safe. `hmac-sha2-256` and
`hmac-sha2-512` (encrypt-and-MAC) are not in AWS's list either; they come last, because libssh2 before 1.11 (curl of
Debian 12) has no others and ssh-audit does not fail them. There is no SHA-1, no CBC, and no compression.
"""

from typing import Final

KEY_EXCHANGES: Final = (
    "mlkem768x25519-sha256",
    "mlkem768nistp256-sha256",
    "mlkem1024nistp384-sha384",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
)

CIPHERS: Final = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)

MACS: Final = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
)

SIGNATURES: Final = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
"""How users may sign. An RSA key signs with SHA-2 only."""

HOST_KEY_RSA_MINIMUM_BITS: Final = 3072
"""A shorter RSA host key is refused at start-up (ssh-audit fails it)."""
