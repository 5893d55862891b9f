"""A server that can't start says in one sentence why, and what would let it."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from webhook.server import serve
from webhook.settings import Settings

Start = Callable[..., str]


@pytest.fixture
def start(cert_dir: Path, capfd: pytest.CaptureFixture[str]) -> Start:
    """What is said by a server that does not start."""

    def failed(*, cert_dir: Path = cert_dir, host: str = "127.0.0.1", port: int = 0, metrics_port: int = 0) -> str:
        assert serve(Settings(), cert_dir=cert_dir, host=host, port=port, metrics_port=metrics_port) == 2
        said = capfd.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        return said.err

    return failed


@pytest.mark.parametrize("option", ["port", "metrics_port"])
def test_a_port_that_is_taken(start: Start, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        flag = f"--{option.replace('_', '-')}"
        assert start(**{option: port}) == (
            f"plane-webhook: {flag} {port} on 127.0.0.1 can't be listened on (Address already in use): choose another "
            f"{flag} or --host, or end the process that has it\n"
        )


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"host": "192.0.2.1"}, "on 192.0.2.1 can't be listened on (Cannot assign requested address)"),
        ({"host": "no such host"}, "on no such host can't be listened on ("),
        ({"host": "300.1.1.1"}, "on 300.1.1.1 can't be listened on ("),
        ({"port": 70_000}, "--port 70000 on 127.0.0.1 can't be listened on ("),
        ({"metrics_port": -1}, "--metrics-port -1 on 127.0.0.1 can't be listened on ("),
    ],
)
def test_an_address_that_can_not_be_had(start: Start, options: dict[str, str | int], why: str) -> None:
    """And what to do fits: there is no process that has it."""
    said = start(**options)
    assert why in said
    (option,) = options
    hint = f"choose another --{option.replace('_', '-')}\n"
    if option == "host":
        hint = "--host takes an address of this machine; without it, all of them are listened on\n"
    assert said.endswith(f": {hint}")


def test_a_directory_that_is_not_there(start: Start, tmp_path: Path) -> None:
    assert start(cert_dir=tmp_path / "typo") == (
        f"plane-webhook: --cert-dir {tmp_path}/typo can't be read (No such file or directory): mount the Secret with "
        "tls.crt, tls.key and ca.crt there, or make them with `plane-webhook certs issue`\n"
    )


def test_a_directory_that_is_a_file(start: Start, cert_dir: Path) -> None:
    assert "can't be read (Not a directory)" in start(cert_dir=cert_dir / "tls.crt")
