"""Certificates: issue a CA with a leaf for a TLS server, and check the ones that somebody else issued.

Pure X.509: it knows nothing of webhooks or clusters, never opens a socket and never asks for the time: whoever
calls says what time it is.
"""

from certs.bundle import bundle
from certs.checking import CertificateError, Leaf, check
from certs.issuing import generate, issue

__all__ = ["CertificateError", "Leaf", "bundle", "check", "generate", "issue"]
