"""A PostgreSQL server of our own, from Debian's package, in a temporary folder and with no port."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path


def postgres_binaries() -> Path | None:
    """Folder of initdb and postgres, None where they are not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name), reverse=True)
    found = shutil.which("initdb")
    candidates = [*folders, *([Path(found).resolve().parent] if found else [])]
    return next((p for p in candidates if (p / "initdb").exists() and (p / "pg_ctl").exists()), None)


def _user() -> dict[str, object]:
    # PostgreSQL refuses to run as root; Debian's package makes a user for it.
    if os.geteuid() != 0:
        return {}
    try:
        entry = pwd.getpwnam("postgres")
    except KeyError:
        entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@contextmanager
def running_server(binaries: Path):
    """Start a server, give the URL of its database through a socket, and stop it again."""
    user = _user()
    # Short: the path of a socket may have some hundred characters only.
    folder = Path(tempfile.mkdtemp(prefix="tumble-pg-", dir="/tmp"))
    try:
        if user:
            os.chown(folder, user["user"], user["group"])
        data, log = folder / "data", folder / "log"
        environment = {**os.environ, "LC_ALL": "C"}
        common = {"check": True, "capture_output": True, "env": environment, "cwd": folder, "timeout": 120, **user}
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "tumble", "-A", "trust", "-E", "UTF8", "--no-sync"], **common
        )
        options = f"-k {folder} -c listen_addresses= -c fsync=off -c max_connections=30"
        common = {**common, "capture_output": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([binaries / "pg_ctl", "-D", data, "-l", log, "-o", options, "-w", "start"], **common)
        try:
            yield f"postgresql://tumble@/postgres?host={folder}"
        finally:
            subprocess.run([binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], **common)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
