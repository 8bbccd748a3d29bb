"""A model's folder as one signed file, ``NAME-VERSION.haatmodel``.

It is a zip file of the folder's files and two more: ``HAAT/digests.json`` names every file with its SHA-256, and
``HAAT/signature.json`` holds the Ed25519 signature of exactly those bytes. Nothing is unpacked before the signature is
known to be good, and nothing that the digests don't name.
"""

from __future__ import annotations

import base64
import binascii
import errno
import hashlib
import os
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from haat.kernel.errors import BundleMalformed, BundleTooLarge, BundleUnsafe, BundleUnsigned
from haat.models.manifest import Manifest
from haat.models.manifest_file import FILE, read_manifest

SUFFIX = ".haatmodel"
DIGESTS, SIGNATURE = "HAAT/digests.json", "HAAT/signature.json"
MOST_BUNDLE_BYTES = 1024**3
MOST_BYTES = 4 * 1024**3
"""Of all its files, unpacked."""
MOST_FILES = 10_000
MOST_RATIO = 200
"""How many times its packed size a file of more than 1 MiB may have."""
_MOST_DIRECTORY = 8 * 1024**2
_MOST_LIST = 4 * 1024**2
_MOST_PATH = 240
_MOST_DEPTH = 16
_FREE_OF_RATIO = 1024**2
_SIGNED = b"haat-model-bundle-v1\n"
_CHUNK = 1024**2
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    EOFError,
    struct.error,
    OverflowError,
    RuntimeError,
)
"""What `zipfile` raises for files that are none."""
_END, _END_64 = b"PK\x05\x06", b"PK\x06\x07"
_IGNORED = {"__pycache__", ".git", ".venv", ".DS_Store", ".pytest_cache", ".mypy_cache", ".ruff_cache"}


class _Digests(msgspec.Struct, forbid_unknown_fields=True):
    format: int
    name: str
    version: str
    files: dict[str, str]


class _Signature(msgspec.Struct, forbid_unknown_fields=True):
    algorithm: str
    key: str
    signature: str


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A bundle that was checked and unpacked: ``digest`` is its SHA-256, ``key`` the id of the key that signed it."""

    manifest: Manifest
    folder: Path
    digest: str
    key: str


def key_id(public: Ed25519PublicKey) -> str:
    """Return the name of a key: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]


def public_key(raw: bytes) -> Ed25519PublicKey:
    """Return a public key from its 32 bytes; raise ValueError for what is none."""
    return Ed25519PublicKey.from_public_bytes(raw)


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Return the key in a file that only its owner can read, made on first use."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        try:
            return Ed25519PrivateKey.from_private_bytes(base64.b64decode(path.read_text().strip(), validate=True))
        except ValueError as error:
            raise BundleUnsigned(f"{path} holds no signing key: move it away, and a new one is made.") from error
    key = Ed25519PrivateKey.generate()
    with os.fdopen(descriptor, "w") as file:
        file.write(base64.b64encode(key.private_bytes_raw()).decode() + "\n")
    return key


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- making one ----------------------------------------------------------------------------------


def make_bundle(folder: Path, target: Path, key: Ed25519PrivateKey) -> Manifest:
    """Write a folder as a signed bundle; the same folder makes the same file.

    Raise ValidationFailed for its manifest, BundleUnsafe for links and the like in it, BundleTooLarge.
    """
    manifest = read_manifest(folder)
    files = _files_of(folder)
    digests = _Digests(1, manifest.name, manifest.version, {name: digest_of(folder / name) for name in files})
    listed = msgspec.json.format(msgspec.json.encode(digests, order="sorted"), indent=1)
    signature = base64.b64encode(key.sign(_SIGNED + listed)).decode()
    signed = _Signature("ed25519", key_id(key.public_key()), signature)
    fresh = target.with_name(target.name + ".new")
    try:
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive:
            archive.writestr(_entry(DIGESTS), listed)
            archive.writestr(_entry(SIGNATURE), msgspec.json.encode(signed))
            for name in files:
                with (folder / name).open("rb") as source, archive.open(_entry(name), "w", force_zip64=True) as written:
                    shutil.copyfileobj(source, written, _CHUNK)
        if fresh.stat().st_size > MOST_BUNDLE_BYTES:
            raise BundleTooLarge(limit=MOST_BUNDLE_BYTES)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    return manifest


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = (stat.S_IFREG | 0o644) << 16
    return entry


def _files_of(folder: Path) -> list[str]:
    found, size = [], 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - _IGNORED)
        for name in [*folders, *names]:
            path = Path(place) / name
            relative = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise BundleUnsafe(f"{relative} is a link, or no ordinary file: replace it with what it leads to.")
            if stat.S_ISREG(mode) and name not in _IGNORED and not name.endswith(SUFFIX):
                _check_path(relative)
                found.append(relative)
                size += path.stat().st_size
    if len(found) > MOST_FILES:
        raise BundleTooLarge(
            f"The folder has {len(found):,} files; a bundle has at most {MOST_FILES:,}.", limit=MOST_FILES
        )
    if size > MOST_BYTES:
        raise BundleTooLarge(limit=MOST_BYTES)
    return sorted(found)


# --- opening one ---------------------------------------------------------------------------------


def open_bundle(bundle: Path, trusted: Mapping[str, bytes], target: Path) -> Unpacked:
    """Check a bundle and unpack it to the folder ``target``, which appears whole or not at all.

    ``trusted`` are the public keys whose signature counts, 32 bytes each, by their id. Raise BundleMalformed,
    BundleUnsafe, BundleTooLarge, BundleUnsigned; ValidationFailed for what its manifest says.
    """
    size = bundle.stat().st_size
    if size > MOST_BUNDLE_BYTES:
        raise BundleTooLarge(limit=MOST_BUNDLE_BYTES)
    try:
        with bundle.open("rb") as file:
            _check_end(file, size)
            with zipfile.ZipFile(file) as archive:
                entries = _entries(archive, size)
                digests, signer = _verified(archive, entries, trusted)
                target.parent.mkdir(parents=True, exist_ok=True)
                fresh = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
                try:
                    _unpack(archive, entries, digests, fresh)
                    manifest = read_manifest(fresh)
                    if (manifest.name, manifest.version) != (digests.name, digests.version):
                        raise BundleMalformed("The manifest has another name or version than the list of digests.")
                    fresh.chmod(0o755)
                    if target.exists():
                        shutil.rmtree(target)  # of a process that was killed, or the same files
                    fresh.rename(target)
                finally:
                    shutil.rmtree(fresh, ignore_errors=True)
    except _DAMAGED as error:
        raise BundleMalformed(
            "The file is no zip file, or a damaged one: make it again with `haat models bundle`."
        ) from error
    except ValueError as error:
        raise BundleMalformed from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # it names a place before the file's start
            raise
        raise BundleMalformed from error
    return Unpacked(manifest, target, digest_of(bundle), signer)


def _check_end(file: IO[bytes], size: int) -> None:
    """Refuse a directory that is not worth reading, before `zipfile` reads all of it into memory."""
    start = max(0, size - 65_557 - 20)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise BundleMalformed("The file is no zip file: make it with `haat models bundle`.")
    count, length = struct.unpack_from("<HI", tail, at + 10)
    if tail[max(0, at - 20) : at].startswith(_END_64) or count > MOST_FILES + 2 or length > _MOST_DIRECTORY:
        raise BundleTooLarge(f"The bundle has too many files; it may have {MOST_FILES:,}.", limit=MOST_FILES)


def _entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the entries by name, checked for everything that can be told without unpacking."""
    entries: dict[str, zipfile.ZipInfo] = {}
    seen: set[str] = set()
    total = 0
    for entry in archive.infolist():
        name = entry.orig_filename
        _check_path(name)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise BundleUnsafe(f"{name[:100]} is a link, a folder of its own, or no ordinary file.")
        if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleUnsafe(f"{name[:100]} is encrypted, or packed in an unusual way.")
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded in seen:
            raise BundleUnsafe(f"{name[:100]} is there twice, or differs from another name only in its case.")
        seen.add(folded)
        if entry.file_size > _FREE_OF_RATIO and entry.file_size > MOST_RATIO * max(1, entry.compress_size):
            raise BundleUnsafe(f"{name[:100]} would unpack to more than {MOST_RATIO} times its size.")
        total += entry.file_size
        entries[name] = entry
    if len(entries) > MOST_FILES + 2:
        raise BundleTooLarge(f"The bundle has too many files; it may have {MOST_FILES:,}.", limit=MOST_FILES)
    if total > MOST_BYTES or sum(entry.compress_size for entry in entries.values()) > size:
        raise BundleTooLarge(f"The bundle would unpack to more than {MOST_BYTES:,} bytes.", limit=MOST_BYTES)
    return entries


def _check_path(name: str) -> None:
    path = PurePosixPath(name)
    if (
        not name
        or len(name.encode("utf-8", "replace")) > _MOST_PATH
        or path.is_absolute()
        or len(path.parts) > _MOST_DEPTH
        or str(path) != name
        or any(part in ("..", ".") or (part != part.strip(" .") and part.strip(" .") == "") for part in path.parts)
        or any(letter in '\\:*?"<>|' or not letter.isprintable() for letter in name)
    ):
        raise BundleUnsafe(f"{name[:100]!r} is not a path that a file in a bundle can have.")


def _verified(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], trusted: Mapping[str, bytes]
) -> tuple[_Digests, str]:
    if DIGESTS not in entries or SIGNATURE not in entries:
        raise BundleUnsigned("The bundle is not signed: make it with `haat models bundle`.")
    listed = _read(archive, entries[DIGESTS])
    try:
        signed = msgspec.json.decode(_read(archive, entries[SIGNATURE]), type=_Signature)
        signature = base64.b64decode(signed.signature, validate=True)
    except (msgspec.DecodeError, binascii.Error, UnicodeError) as error:
        raise BundleUnsigned("The bundle's signature can't be read.") from error
    known = trusted.get(signed.key)
    if signed.algorithm != "ed25519" or known is None:
        raise BundleUnsigned(
            f"The bundle is signed with the key {signed.key[:64]}, which your organisation has not registered: "
            "`haat models keys --register` does that."
        )
    try:
        public_key(known).verify(signature, _SIGNED + listed)
    except InvalidSignature as error:
        raise BundleUnsigned("The signature does not fit the bundle: it was changed after it was signed.") from error
    try:
        digests = msgspec.json.decode(listed, type=_Digests)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BundleMalformed("The list of digests can't be read.") from error
    if digests.format != 1:
        raise BundleMalformed(f"The bundle is of format {digests.format}; this platform reads format 1.")
    if set(digests.files) != set(entries) - {DIGESTS, SIGNATURE}:
        raise BundleMalformed("The bundle holds other files than its list of digests names.")
    if FILE not in digests.files:
        raise BundleMalformed(f"The bundle has no {FILE}.")
    return digests, signed.key


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.file_size > _MOST_LIST:
        raise BundleTooLarge(f"{entry.filename} is larger than {_MOST_LIST:,} bytes.", limit=_MOST_LIST)
    with archive.open(entry) as source:
        return source.read(_MOST_LIST + 1)


def _unpack(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], digests: _Digests, target: Path) -> None:
    for name, digest in digests.files.items():
        path = target / name
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        seen, left = hashlib.sha256(), entries[name].file_size
        with archive.open(entries[name]) as source, path.open("xb") as written:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise BundleUnsafe(f"{name[:100]} is larger than it says.")
                seen.update(chunk)
                written.write(chunk)
        if seen.hexdigest() != digest:
            raise BundleUnsigned(f"{name[:100]} is not the file that was signed.")
