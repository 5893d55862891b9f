"""A socket to listen on, for whoever serves: one family of addresses, or both."""

import errno
import socket


class PortError(Exception):
    """It can't be listened there; the text says where, why, and what to do."""


def listen(host: str, port: int, option: str) -> socket.socket:
    """Listen on an address: `host` empty or `::` is all of them, IPv4 and IPv6; port 0 is any free one.

    PortError, which names `option`, the one that set the port.
    """
    everywhere = host in {"", "::"}
    ipv6 = ":" in host or (everywhere and socket.has_dualstack_ipv6())
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ipv6 else socket.AF_INET, dualstack_ipv6=ipv6 and everywhere
        )
    except (OSError, OverflowError) as error:
        why = str(getattr(error, "strerror", error)).partition(" (while")[0]
        raise PortError(
            f"{option} {port} on {host or 'every address'} can't be listened on ({why}): {_hint(error, option)}"
        ) from error


def _hint(error: OSError | OverflowError, option: str) -> str:
    """What to do about it."""
    if isinstance(error, OverflowError):
        return f"choose another {option}"
    # `create_server` raises its own in place of the resolver's.
    if isinstance(error.__context__, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return "--host takes an address of this machine; without it, all of them are listened on"
    if error.errno == errno.EADDRINUSE:
        return f"choose another {option} or --host, or end the process that has it"
    return f"choose another {option} or --host"
