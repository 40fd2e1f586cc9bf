"""Who is who on the wire: a private certificate authority, one certificate a device, and what is checked of them.

A device is its certificate's common name. Keys are on the curve P-256; a certificate serves both ends of a connection
and holds every address the device is dialled by, since TLS compares them.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

AUTHORITY = "ca"
"""Name of the authority's files, which no device may have."""
SLACK = timedelta(days=1)
"""A certificate is valid from a day before it was made, so that a clock that is behind does not refuse it."""
MAX_NAME = 64
"""Longest common name that X.509 allows."""


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """Files a device proves itself with. authority: certificate of the private CA. certificate, key: its own."""

    authority: Path
    certificate: Path
    key: Path


def credentials(directory: Path, name: str) -> Credentials:
    """Where the files of a device lie in a directory of keys."""
    return Credentials(
        authority=directory / f"{AUTHORITY}.crt", certificate=directory / f"{name}.crt", key=directory / f"{name}.key"
    )


def check_name(name: str) -> str:
    """A name that can stand in a certificate, a key expression and a file name.

    Raises:
        ValueError: empty, longer than 64, other characters than letters, digits, - and _, or the authority's.

    >>> check_name("pi-3")
    'pi-3'
    """
    plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    if not plain or len(name) > MAX_NAME or name.lower() == AUTHORITY:
        raise ValueError(
            f"{name!r} is no name for a device: letters, digits, - and _, at most {MAX_NAME}, and not {AUTHORITY!r}"
        )
    return name


def make_authority(directory: Path, days: int = 3650, now: datetime | None = None) -> bool:
    """Make the private authority in a directory, unless it is there.

    Args:
        directory: gets `ca.crt`, which every device needs, and `ca.key`, which none does.
        days: how long it is valid.
        now: of the validity; none: the clock's.

    Returns:
        Whether it was made.

    Raises:
        ValueError: one half of it is missing.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    certificate, key_file = directory / f"{AUTHORITY}.crt", directory / f"{AUTHORITY}.key"
    if certificate.exists() and key_file.exists():
        return False
    if certificate.exists() or key_file.exists():
        have, lack = (certificate, key_file) if certificate.exists() else (key_file, certificate)
        raise ValueError(f"{directory} has {have.name} but not {lack.name}: bring it back, or begin in an empty one")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "orthomesh private authority")])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        _begin(name, name, key.public_key(), days, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_pair(certificate, made, key_file, key)
    return True


def make_device(
    directory: Path, name: str, hosts: Sequence[str], days: int = 365, now: datetime | None = None, renew: bool = False
) -> Credentials:
    """Make the key and certificate of one device.

    Args:
        directory: holds the authority; gets `NAME.crt` and `NAME.key` (mode 0600).
        name: common name, by which others know the device.
        hosts: addresses and host names it is dialled by; its own name is added.
        days: how long it is valid.
        now: of the validity; none: the clock's.
        renew: replace what is there.

    Returns:
        Its files.

    Raises:
        ValueError: a name that cannot be one, no authority, or files that are there.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    files = credentials(directory, check_name(name))
    if not renew and (files.certificate.exists() or files.key.exists()):
        raise ValueError(f"{directory} has files of {name} already; to replace them add --renew")
    authority, authority_key = read_certificate(files.authority), _read_key(directory / f"{AUTHORITY}.key")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    made = (
        _begin(subject, authority.subject, key.public_key(), days, now)
        .add_extension(x509.SubjectAlternativeName([_alternative(h) for h in dict.fromkeys([*hosts, name])]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(both_ends), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    _write_pair(files.certificate, made, files.key, key)
    return files


def _begin(subject: Any, issuer: Any, public: Any, days: int, now: datetime | None) -> Any:
    """What all certificates begin with."""
    from cryptography import x509

    moment = now or datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - SLACK)
        .not_valid_after(moment + timedelta(days=days))
    )


def _alternative(host: str) -> Any:
    """An address or a host name as TLS compares it."""
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_pair(certificate_file: Path, certificate: Any, key_file: Path, key: Any) -> None:
    """The key first and closed to others from its first byte on."""
    from cryptography.hazmat.primitives import serialization as to

    key_file.parent.mkdir(parents=True, exist_ok=True)
    key_file.unlink(missing_ok=True)
    with open(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.NoEncryption()))
    certificate_file.write_bytes(certificate.public_bytes(to.Encoding.PEM))


def check(files: Credentials, name: str, now: datetime | None = None) -> list[str]:
    """That a device can prove with its files who it is, before others refuse it without a word.

    Args:
        files: of the device.
        name: who it is to be.
        now: by which validity is judged; none: the clock's.

    Returns:
        Sentences a user should know: a key that others can read, a certificate that ends within a week.

    Raises:
        ValueError: a file that cannot be read, a certificate of somebody else, of another authority, expired or not
            yet valid, or a key that does not belong to it.
    """
    from cryptography.exceptions import InvalidSignature

    authority, own, key = read_certificate(files.authority), read_certificate(files.certificate), _read_key(files.key)
    moment = now or datetime.now(UTC)
    for file, certificate in ((files.authority, authority), (files.certificate, own)):
        _check_validity(file, certificate, moment)
    if common_name(own) != name:
        raise ValueError(f"{files.certificate} is the certificate of {common_name(own)!r}, this device is {name!r}")
    try:
        own.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        raise ValueError(f"{files.certificate} was not issued by the authority of {files.authority}") from None
    if key.public_key() != own.public_key():
        raise ValueError(f"{files.key} does not belong to {files.certificate}: the two were not made together")
    notes = []
    if stat.S_IMODE(files.key.stat().st_mode) & 0o077:
        notes.append(f"{files.key} can be read by others than its owner; close it with: chmod 600 {files.key}")
    if own.not_valid_after_utc - moment < timedelta(days=7):
        notes.append(f"{files.certificate} ends {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC; renew it soon")
    return notes


def _check_validity(file: Path, certificate: Any, moment: datetime) -> None:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    clock = f"the clock of this machine says {moment:%Y-%m-%d %H:%M} UTC"
    if moment > end:
        raise ValueError(f"{file} expired {end:%Y-%m-%d %H:%M} UTC, {clock}; make a new one: orthomesh keys --renew")
    if moment < begin:
        raise ValueError(f"{file} is not valid before {begin:%Y-%m-%d %H:%M} UTC, {clock}; set the clock")


def common_name(certificate: Any) -> str:
    """Whose certificate it is; empty where it does not say."""
    from cryptography.x509 import NameOID

    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def read_certificate(file: Path) -> Any:
    """A certificate from a PEM file.

    Raises:
        ValueError: missing, or no certificate.
    """
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise ValueError(f"certificate {file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{file} is not a certificate in PEM form") from None


def _read_key(file: Path) -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise ValueError(f"key {file} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise ValueError(f"{file} is not a private key in PEM form without a password") from None
