"""The master key: made once, and everything else derived from it."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given
from hypothesis import strategies as st

from haat.infra.keyring import Keyring

KEYRING = Keyring(bytes(range(32)))


def test_the_master_key_is_made_once_and_closed_to_others(tmp_path: Path) -> None:
    first = Keyring.load(tmp_path)
    assert Keyring.load(tmp_path).derive("x") == first.derive("x")
    file = tmp_path / "secrets" / "master.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700


def test_several_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        derived = set(pool.map(lambda _: Keyring.load(tmp_path).derive("x"), range(8)))
    assert len(derived) == 1
    assert [file.name for file in (tmp_path / "secrets").iterdir()] == ["master.key"]


def test_a_given_key_wins_and_nothing_is_written(tmp_path: Path) -> None:
    given_key = base64.b64encode(bytes(range(32))).decode()
    assert Keyring.load(tmp_path, given_key).derive("x") == KEYRING.derive("x")
    assert list(tmp_path.iterdir()) == []


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="32"):
        Keyring.load(tmp_path, base64.b64encode(b"short").decode())


def test_purposes_and_roles_have_keys_of_their_own() -> None:
    assert len({KEYRING.derive("a"), KEYRING.derive("b"), KEYRING.key_hash_key}) == 3
    assert KEYRING.role_password("haat_app") != KEYRING.role_password("haat_service")


@given(st.text(), st.text())
def test_what_is_encrypted_reads_back_in_its_context(plaintext: str, context: str) -> None:
    assert KEYRING.decrypt(KEYRING.encrypt(plaintext, context), context) == plaintext


def test_a_ciphertext_moved_to_another_context_or_changed_does_not_read(tmp_path: Path) -> None:
    ciphertext = KEYRING.encrypt("secret", "service/1")
    for stolen, context in (
        (ciphertext, "service/2"),
        (ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]), "service/1"),
    ):
        with pytest.raises(InvalidTag):
            KEYRING.decrypt(stolen, context)


def test_equal_texts_have_different_ciphertexts() -> None:
    assert KEYRING.encrypt("same", "c") != KEYRING.encrypt("same", "c")


def test_a_key_is_hashed_the_same_by_the_same_master_key_only() -> None:
    assert KEYRING.hash_key("haat_live_x") == Keyring(bytes(range(32))).hash_key("haat_live_x")
    assert KEYRING.hash_key("haat_live_x") != Keyring(bytes(32)).hash_key("haat_live_x")
