"""A bundle comes out as it went in, or not at all."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from haat.kernel.errors import (
    BundleMalformed,
    BundleTooLarge,
    BundleUnsafe,
    BundleUnsigned,
    HaatError,
    ValidationFailed,
)
from haat.models import bundle
from haat.models.bundle import DIGESTS, SIGNATURE, key_id, load_signing_key, make_bundle, open_bundle
from models.runtimes.folders import from_template

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
TRUSTED = {key_id(KEY.public_key()): KEY.public_key().public_bytes_raw()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return from_template(tmp_path, "python")


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    target = tmp_path / "words.haatmodel"
    make_bundle(folder, target, KEY)
    return target


def forged(target: Path, files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> Path:
    """Return a bundle with these files, rightly signed, whose last entry was changed."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    listed = msgspec.json.encode({"format": 1, "name": "words", "version": "1.0.0", "files": digests})
    signature = base64.b64encode(KEY.sign(b"haat-model-bundle-v1\n" + listed)).decode()
    signed = {"algorithm": "ed25519", "key": key_id(KEY.public_key()), "signature": signature}
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(DIGESTS, listed)
        archive.writestr(SIGNATURE, msgspec.json.encode(signed))
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.filename = name
            entry.compress_type = zipfile.ZIP_DEFLATED
            change(entry)
            archive.writestr(entry, content)
    return target


def refused(path: Path, kind: type[HaatError], into: Path) -> None:
    with pytest.raises(kind):
        open_bundle(path, TRUSTED, into / "out" / "model")
    assert not (into / "out").exists() or not list((into / "out").iterdir())


def test_it_comes_out_as_it_went_in(packed: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "__pycache__").mkdir()
    unpacked = open_bundle(packed, TRUSTED, tmp_path / "out" / "model")
    assert (unpacked.manifest.name, unpacked.manifest.version) == ("words", "1.0.0")
    assert unpacked.digest == hashlib.sha256(packed.read_bytes()).hexdigest()
    names = {path.name for path in unpacked.folder.iterdir()}
    assert names == {"haat-model.yaml", "model.py", "test_model.py"}
    for name in names:
        assert (unpacked.folder / name).read_bytes() == (folder / name).read_bytes()


def test_the_same_folder_makes_the_same_bundle(packed: Path, folder: Path, tmp_path: Path) -> None:
    os.utime(folder / "model.py", (1, 1))
    make_bundle(folder, tmp_path / "again.haatmodel", KEY)
    assert (tmp_path / "again.haatmodel").read_bytes() == packed.read_bytes()


@pytest.mark.parametrize(
    "name",
    ["../evil.py", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:evil", "./a", "a//b", "a\x07b", "..", "a/", ""],
)
def test_a_path_that_leads_elsewhere_is_not_unpacked(tmp_path: Path, name: str) -> None:
    refused(forged(tmp_path / "b.haatmodel", {name: b"x"}), BundleUnsafe, tmp_path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFIFO])
def test_what_is_no_ordinary_file_is_not_unpacked(tmp_path: Path, kind: int) -> None:
    def change(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = (kind | 0o777) << 16

    refused(forged(tmp_path / "b.haatmodel", {"link": b"/etc/passwd"}, change), BundleUnsafe, tmp_path)


def test_a_link_in_the_folder_is_not_packed(folder: Path, tmp_path: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(BundleUnsafe):
        make_bundle(folder, tmp_path / "b.haatmodel", KEY)
    assert not (tmp_path / "b.haatmodel").exists()


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    refused(forged(tmp_path / "b.haatmodel", {"bomb": bytes(8 * 1024 * 1024)}), BundleUnsafe, tmp_path)


def test_too_many_files_are_refused_before_their_directory_is_read(tmp_path: Path) -> None:
    many = {f"f{number}": b"" for number in range(bundle.MOST_FILES + 1)}
    refused(forged(tmp_path / "b.haatmodel", many), BundleTooLarge, tmp_path)


def test_names_that_differ_only_in_their_case_are_refused(tmp_path: Path) -> None:
    refused(forged(tmp_path / "b.haatmodel", {"A.py": b"a", "a.py": b"b"}), BundleUnsafe, tmp_path)


def test_files_beside_the_signed_ones_are_refused(packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("extra.py", "evil")
    refused(packed, BundleMalformed, tmp_path)


def test_a_changed_file_is_refused(packed: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.haatmodel"
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(changed, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            target.writestr(entry.filename, content + b"#" if entry.filename == "model.py" else content)
    refused(changed, BundleUnsigned, tmp_path)


def test_only_registered_keys_count(packed: Path, tmp_path: Path) -> None:
    other = Ed25519PrivateKey.generate().public_key()
    for trusted in (
        {},
        {key_id(other): other.public_bytes_raw()},
        {key_id(KEY.public_key()): other.public_bytes_raw()},
    ):
        with pytest.raises(BundleUnsigned):
            open_bundle(packed, trusted, tmp_path / "out")


def test_an_unsigned_one_is_refused(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.haatmodel", "w") as archive:
        archive.write(folder / "haat-model.yaml", "haat-model.yaml")
    refused(tmp_path / "b.haatmodel", BundleUnsigned, tmp_path)


def test_a_signed_one_without_or_with_a_wrong_manifest_is_refused(tmp_path: Path) -> None:
    refused(forged(tmp_path / "a.haatmodel", {"model.py": b""}), BundleMalformed, tmp_path)
    refused(forged(tmp_path / "b.haatmodel", {"haat-model.yaml": b"name: x"}), ValidationFailed, tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK", b"not a zip", b"PK\x05\x06" + bytes(18), os.urandom(1000)])
def test_what_is_no_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.haatmodel").write_bytes(content)
    with pytest.raises((BundleMalformed, BundleUnsigned)):
        open_bundle(tmp_path / "b.haatmodel", TRUSTED, tmp_path / "out")


def test_no_damage_does_anything_but_refuse(packed: Path, tmp_path: Path) -> None:
    chance, whole = random.Random(7), packed.read_bytes()
    for turn in range(400):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 1, 4))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        if turn % 4 == 0:
            del content[chance.randrange(len(content)) :]
        packed.write_bytes(content)
        try:
            open_bundle(packed, TRUSTED, tmp_path / "out" / "model")
        except (BundleMalformed, BundleUnsafe, BundleUnsigned, BundleTooLarge):
            continue
        # What was changed carries nothing: a date, say. The files are those that were signed.
        assert (tmp_path / "out" / "model" / "model.py").exists()


def test_the_signing_key_is_its_owners_alone_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "model.key"
    key = load_signing_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_signing_key(path).private_bytes_raw() == key.private_bytes_raw()
    path.write_text("rubbish")
    with pytest.raises(BundleUnsigned, match="holds no signing key"):
        load_signing_key(path)
