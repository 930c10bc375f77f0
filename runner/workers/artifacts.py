"""The cache of compiled modules on disk.

Loading an artifact means running its bytes as native code, so none is trusted that this user did
not write: each carries an HMAC under a key that lives in the user's own state folder, never beside
a jobs.yaml that may have come from someone else. What is damaged or foreign is compiled again.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import platform
import secrets
import tempfile
from functools import lru_cache
from pathlib import Path

KEY_BYTES = 32
_MAC_BYTES = 32


@lru_cache(maxsize=1)
def cpu_identity() -> str:
    """A short name of what native code may rely on here: architecture and CPU features."""
    features = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        features = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:12]


def key_path() -> Path:
    """Where this user's key is kept: XDG_STATE_HOME, or ~/.local/state, and there `runner/`."""
    base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    return base / "runner" / "artifact.key"


def load_key() -> bytes:
    """This user's key, made at first use. A key that cannot be kept is used once: then nothing is
    found in the cache the next time, and everything still works."""
    try:
        path = key_path()
    except RuntimeError:  # a user without a home
        return secrets.token_bytes(KEY_BYTES)
    for _ in range(2):
        try:
            return _read_key(path)
        except FileNotFoundError:
            key = secrets.token_bytes(KEY_BYTES)
            with contextlib.suppress(OSError):  # another process may be first: then its key is ours
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                _write_atomically(path, key, replace=False)
        except (OSError, ValueError):
            break
    return secrets.token_bytes(KEY_BYTES)


def _read_key(path: Path) -> bytes:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise ValueError(f"{path} belongs to or is open to someone else")
        key = file.read()
    if len(key) != KEY_BYTES:
        raise ValueError(f"{path} holds no key")
    return key


def _write_atomically(path: Path, data: bytes, *, replace: bool = True) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        if replace:
            Path(name).replace(path)
        else:
            os.link(name, path)
            Path(name).unlink()
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


class ArtifactCache:
    """Artifacts of one engine version on this kind of CPU, by module and limit."""

    def __init__(self, root: Path, engine: str) -> None:
        self._folder = root / f"{engine}-{cpu_identity()}"
        self._key = load_key()

    def _path(self, wasm_cid: str, variant: str) -> Path:
        return self._folder / f"{wasm_cid}-{variant}"

    def _mac(self, path: Path, data: bytes) -> bytes:
        # The name is a part of what is signed: one artifact cannot stand in for another.
        return hmac.new(self._key, f"{self._folder.name}/{path.name}".encode() + b"\0" + data, "sha256").digest()

    def get(self, wasm_cid: str, variant: str) -> bytes | None:
        """The artifact, or None when there is none that can be trusted."""
        path = self._path(wasm_cid, variant)
        try:
            whole = path.read_bytes()
        except OSError:
            return None
        mac, data = whole[:_MAC_BYTES], whole[_MAC_BYTES:]
        return data if hmac.compare_digest(mac, self._mac(path, data)) else None

    def put(self, wasm_cid: str, variant: str, artifact: bytes) -> None:
        """Keep an artifact. A cache that cannot be written is no error: it only saves time."""
        path = self._path(wasm_cid, variant)
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_atomically(path, self._mac(path, artifact) + artifact)

    def remove(self, wasm_cid: str) -> None:
        """Forget all variants of a module."""
        for path in self._folder.glob(f"{wasm_cid}-*"):
            with contextlib.suppress(OSError):
                path.unlink()
