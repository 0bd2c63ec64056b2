"""The certificate authority of one bottle and start: it signs what sidecar and broker show to the bottle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

VALID = timedelta(days=2)
SKEW = timedelta(hours=1)  # an engine's clock may be behind this machine's


@dataclass(frozen=True, repr=False)
class Authority:
    """What is signed and with what, as PEM; keys are shown by nobody.

    Attributes:
        certificate: of the authority, which the bottle trusts.
        key: of the authority; the sidecar's.
        chain: the broker's certificate and its key; empty where no host is brokered.
    """

    certificate: bytes
    key: bytes
    chain: bytes


def make_authority(name: str, brokered: Sequence[str]) -> Authority:
    """Make a new authority in memory, and the broker's certificate.

    Args:
        name: of the bottle, for whoever reads the certificate.
        brokered: the hosts that the broker answers for.
    """
    # Only a start with something to open needs it, and it takes longer to load than all else.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
        form = serialization.PrivateFormat.TraditionalOpenSSL  # the one that the sidecar reads
        return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])

    def begun(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        return builder.not_valid_before(now - SKEW).not_valid_after(now + VALID)

    def usage(*, signs: bool) -> x509.KeyUsage:
        return x509.KeyUsage(not signs, False, False, False, False, signs, signs, False, False)

    own, issuer = ec.generate_private_key(ec.SECP256R1()), named(f"claude-bottle {name}")
    mark = x509.SubjectKeyIdentifier.from_public_key(own.public_key())
    root = begun(issuer, own).add_extension(x509.BasicConstraints(True, 0), True)
    root = root.add_extension(usage(signs=True), True).add_extension(mark, False)
    certificate = root.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    if not brokered:
        return Authority(certificate, pem(own), b"")
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = begun(named("claude-bottle broker"), key).add_extension(x509.BasicConstraints(False, None), True)
    leaf = leaf.add_extension(usage(signs=False), True)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in brokered]), False)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(mark), False)
    shown = leaf.sign(own, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return Authority(certificate, pem(own), shown + pem(key))
