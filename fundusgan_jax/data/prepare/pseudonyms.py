"""Names for patients whose ids are in DICOM files: hashes with a key that stays in the output folder."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError

KEY = "patients.key"


class Pseudonyms:
    """Patient id -> 'dicom-' and 16 hexadecimal digits of its HMAC-SHA256. The key is drawn when the first is asked for.

    Without the key nobody tells an id from its hash by trying all of them. With the key of another output, copied, patients
    have the same names there.

    Args:
        path: of the key's file.

    Raises (when called):
        UserError: the key is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key = b""

    def __call__(self, patient: str) -> str:
        self._key = self._key or self._kept_key()
        return f"dicom-{hmac.new(self._key, patient.encode(), hashlib.sha256).hexdigest()[:16]}"

    def _kept_key(self) -> bytes:
        if not self._path.is_file():
            with atomic_write(self._path) as temporary:
                temporary.write_text(secrets.token_hex(32) + "\n")
            os.chmod(self._path, 0o600)
        try:
            key = bytes.fromhex(self._path.read_text().strip())
        except ValueError:
            key = b""
        if len(key) < 16:
            raise UserError(
                f"{self._path} is damaged: bring the file back, or choose another --output (patients get other names then)"
            )
        return key
