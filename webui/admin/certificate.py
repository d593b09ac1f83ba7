"""The certificate of the administration's listener: the operator's, or one made on this device.

One is made with the program `openssl` at the first start, and again when it is about to expire or when it is from a
time when the clock of the box was not set. Its key leaves the device in a backup alone, and this process alone reads
it. Of the operator's a copy is kept beside it: a backup takes it from there, since the files themselves may lie
anywhere and be readable for nobody else, and on a device that took a backup it is served from there.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import ssl
import subprocess
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_DAYS: Final = 800  # browsers refuse more than 825
_RENEW_S: Final = 30 * 86400
_OPERATOR: Final = "operator.crt", "operator.key"
_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_TIMEOUT_S: Final = 60.0  # a P-256 key takes a slow router well under a second


class CertificateError(Exception):
    """No listener without a certificate; the message says what to do."""


def made_here(folder: Path) -> tuple[Path, Path]:
    """Where certificate and key made on this device are."""
    return folder / "device.crt", folder / "device.key"


def own_certificate(folder: Path, hostname: str) -> tuple[Path, Path]:
    """Certificate and key made on this device, made now where they are missing or nearly over.

    Runs a program, so it is called in a thread. Raises CertificateError.
    """
    certificate, key = made_here(folder)
    if not _is_good(certificate, key):
        _make(certificate, key, hostname)
    return certificate, key


def kept(folder: Path) -> tuple[Path, Path]:
    """Where the copy of the operator's certificate and key is, if there is one."""
    return folder / _OPERATOR[0], folder / _OPERATOR[1]


def keep(files: tuple[Path, Path], folder: Path) -> None:
    """Keep a copy of the operator's certificate and key, without what is not PEM; the same again writes nothing."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path, copy in zip(files, kept(folder), strict=True):
        content = b"\n".join(block[0] for block in _BLOCK.finditer(path.read_bytes())) + b"\n"
        if copy.is_file() and copy.read_bytes() == content:
            continue
        fresh = copy.with_name(f"{copy.name}.new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(copy)


def forget(folder: Path) -> None:
    """Remove the copy: the operator has none any more."""
    for copy in kept(folder):
        copy.unlink(missing_ok=True)


def _is_good(certificate: Path, key: Path) -> bool:
    if not certificate.is_file() or not key.is_file():
        return False
    return _openssl("x509", "-in", str(certificate), "-noout", "-checkend", str(_RENEW_S)).returncode == 0


def _make(certificate: Path, key: Path, hostname: str) -> None:
    name = "".join(char for char in hostname if char.isascii() and (char.isalnum() or char in "-."))[:60] or "postern"
    fresh_key, fresh = key.with_suffix(".key.new"), certificate.with_suffix(".crt.new")
    try:
        certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Made before openssl writes to it, so that the key is never readable for others.
        os.close(os.open(fresh_key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        made = _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"),
            *("-days", str(_DAYS), "-subj", f"/CN={name}/O=Postern, made on this device"),
            *("-addext", f"subjectAltName=DNS:{name},DNS:localhost,IP:127.0.0.1"),
            *("-addext", "extendedKeyUsage=serverAuth", "-keyout", str(fresh_key), "-out", str(fresh)),
        )
        if made.returncode:
            raise CertificateError(f"openssl could not make a certificate: {made.stderr.strip()[:500]}")
        fresh_key.replace(key)
        fresh.replace(certificate)
    except OSError as err:
        raise CertificateError(
            f"no certificate in {certificate.parent}: {err}; give the user of this process a folder with --state-dir"
        ) from None
    log.info("certificate made name=%s file=%s sha256=%s", name, certificate, fingerprint(certificate))


def _openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ("openssl", *arguments),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise CertificateError(
            "there is no program openssl: install it, or give a certificate with --certificate and --key"
        ) from None
    except subprocess.TimeoutExpired:
        raise CertificateError(f"openssl did not end within {_TIMEOUT_S:g} s") from None


def fingerprint(certificate: Path) -> str:
    """SHA-256 of the certificate, for the operator to compare with what the browser shows."""
    der = ssl.PEM_cert_to_DER_cert(_first(certificate.read_text("ascii")))
    return hashlib.sha256(der).digest().hex(":").upper()


def _first(text: str) -> str:
    """The first certificate of a chain."""
    end = "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and later with the ciphers that Python takes for good; raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    # Renegotiation is a way to burn our CPU, and none of our clients asks for it.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as err:
        raise CertificateError(f"{certificate} and {key} cannot be used: {err}") from None
    return context
