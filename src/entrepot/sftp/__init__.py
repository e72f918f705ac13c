"""The SFTP server: sessions, handles, home directories, admission control, hardening.

Each file has one subject: `server` listens and drains, `admission` judges sources, `connection` and `login` carry SSH and
authentication, `session` is a logged-in user, `channel` takes packets, `requests` answers them, `tree` knows folders,
`uploads`, `downloads` and `listing` are open handles, `paths` maps names, `wire` is the protocol, `status` maps errors.

It decides no permission itself (`authorize` does), knows no policy language, and makes nothing visible but at CLOSE.
"""

from entrepot.sftp.server import SFTPServer
from entrepot.sftp.settings import SFTPSettings

__all__ = ["SFTPServer", "SFTPSettings"]
