"""PostgreSQL refuses to run as root. Then its programs run under another account, which gets the data
and the right to pass through (not to read) the directories above. Other users run it as themselves.
"""

import logging
import os
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.errors import Unavailable

NAME = "pgretrieve"
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """Who runs PostgreSQL; `change` says whether that is somebody else than this process."""

    uid: int
    gid: int
    change: bool

    def popen(self) -> dict[str, Any]:
        """What `subprocess` is told in order to run a program under this account."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.change else {}

    def give(self, path: Path) -> None:
        if self.change:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def give_tree(self, top: Path) -> None:
        self.give(top)
        for folder, folders, files in os.walk(top):
            for name in folders + files:
                self.give(Path(folder, name))

    def let_through(self, directory: Path) -> None:
        """Make a directory and all above it passable (`o+x`), where they are not, and say so."""
        if not self.change:
            return
        directory = directory.resolve()
        for each in reversed([directory, *directory.parents]):
            found = each.stat()
            if found.st_uid != self.uid and not found.st_mode & stat.S_IXOTH:
                each.chmod(stat.S_IMODE(found.st_mode) | stat.S_IXOTH)
                log.warning("made %s passable (o+x) for the account that runs PostgreSQL", each)


def account_for(pgdata: Path) -> Account:
    """The account that owns this data, or shall own it once it is made."""
    owner = pgdata.stat() if pgdata.exists() else None
    if os.geteuid() != 0:
        if owner and owner.st_uid != os.geteuid():
            raise Unavailable(
                f"{pgdata} belongs to user {_name(owner.st_uid)}, and this process runs as "
                f"{_name(os.geteuid())}. Start it as {_name(owner.st_uid)}, or choose another data directory."
            )
        return Account(os.geteuid(), os.getegid(), change=False)
    if owner and owner.st_uid != 0:  # it was made by an ordinary user, who shall be able to go on with it
        return Account(owner.st_uid, owner.st_gid, change=True)
    account = _own_account()
    if owner:  # restored or copied by root
        account.give_tree(pgdata)
    return account


def _own_account() -> Account:
    if (account := _named_account()) is not None:
        return account
    try:
        command = ["useradd", "--system", "--no-create-home", NAME]
        reason = subprocess.run(command, capture_output=True, text=True, check=False).stderr.strip()  # noqa: S603
    except OSError as error:
        reason = str(error)
    if (account := _named_account()) is None:
        raise Unavailable(
            f"PostgreSQL does not run as root, and the account {NAME!r} could not be created ({reason}). "
            f"Create a system account of that name, or start pgretrieve as an ordinary user."
        )
    log.warning("created the system account %s, under which PostgreSQL runs", NAME)
    return account


def _named_account() -> Account | None:
    import pwd  # not on Windows, as in `_name`

    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        return None
    return Account(entry.pw_uid, entry.pw_gid, change=True)


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
