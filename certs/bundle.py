"""A PEM bundle of certificate authorities, as a caBundle takes it."""

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certs.checking import CertificateError


def bundle(pem: bytes) -> bytes:
    """The certificates in `pem`, without what stands around them. CertificateError: there is none, or a private key."""
    if b"PRIVATE KEY" in pem:
        raise CertificateError("holds a private key, which must not leave its machine; name the file of the authority")
    try:
        found = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(f"holds no PEM certificate that can be read: {error}") from error
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in found)
