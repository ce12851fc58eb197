"""How an order gets its id, and how a repetition is told from another order: both follow from what the client sent, and a secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from retail.gateway.v1.order_service_pb2 import PlaceOrderRequest

from backbone.errors import SettingsError

KEY_BYTES = 32
# 160 bits: two orders never meet by chance, and base32 writes them without padding.
ID_BYTES = 20
FORM = b"1"


def order_id(key: bytes, principal: str, idempotency_key: str) -> str:
    """The id of the order that a principal places under an idempotency key: the same at every replica and every retry.

    Args:
        key: the secret; without it nobody can guess the id of another's order.
    """
    digest = hmac.digest(key, b"".join(_prefixed(principal.encode(), idempotency_key.encode())), "sha256")
    return base64.b32encode(digest[:ID_BYTES]).decode().lower()


def fingerprint(request: PlaceOrderRequest) -> str:
    """Digest of what the client wants, in a form of its own: how long the call may wait is no part of it, and neither is how some
    version of protobuf writes it."""
    fields = [FORM, request.delivery_zone.encode(), b"%d" % len(request.lines)]
    for line in request.lines:
        price = line.unit_price
        fields += (line.sku.encode(), b"%d" % line.quantity, price.currency_code.encode(), b"%d" % price.units, b"%d" % price.nanos)
    return hashlib.sha256(b"".join(_prefixed(*fields))).hexdigest()


def _prefixed(*parts: bytes) -> Iterator[bytes]:
    """Every part behind its length, so that no two lists of parts give the same bytes."""
    for part in parts:
        yield b"%d:" % len(part)
        yield part


def secret_key(file: Path) -> bytes:
    """The secret of the order ids, made at the first start and never changed: with another one every retry would be a new order.

    Args:
        file: where it lies, readable by its owner only; all replicas share it.

    Raises:
        SettingsError: the file cannot be used; says how to mend it.
    """
    try:
        if not file.exists():
            _create(file)
        mode = stat.S_IMODE(file.stat().st_mode)
        key = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"ORDER_ID_KEY_FILE={file} cannot be used: {error.strerror}; name a file in a folder of ours") from error
    if mode & 0o077:
        raise SettingsError(f"ORDER_ID_KEY_FILE={file} is open to others (mode {mode:04o}): chmod 600 {file}")
    if len(key) != KEY_BYTES:
        raise SettingsError(
            f"ORDER_ID_KEY_FILE={file} holds {len(key)} bytes instead of {KEY_BYTES}: restore it from a backup; "
            "a new key would turn every retry of an order into another order"
        )
    return key


def _create(file: Path) -> None:
    """Make the file whole or not at all; of two that try at once, one wins and both use its key."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(secrets.token_bytes(KEY_BYTES))
            out.flush()
            os.fsync(out.fileno())
        try:
            file.hardlink_to(draft)
        except FileExistsError:
            return
    finally:
        draft.unlink()
