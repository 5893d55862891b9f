"""A server that can't start says in one sentence why, and what would let it."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.edges.webhook import REPOSITORY

START = """
import json, sys
from pathlib import Path
from webhook.server import serve
from webhook.settings import Settings
options = json.loads(sys.argv[1])
sys.exit(serve(Settings(), **options | {"cert_dir": Path(options["cert_dir"])}))
"""


def start(cert_dir: Path, *, host: str = "127.0.0.1", port: int = 0, metrics_port: int = 0) -> tuple[int, str]:
    options = {"cert_dir": str(cert_dir), "host": host, "port": port, "metrics_port": metrics_port}
    argv = [sys.executable, "-c", START, json.dumps(options)]
    ended = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=30, check=False)
    assert ended.stdout == ""
    return ended.returncode, ended.stderr


@pytest.mark.parametrize("option", ["port", "metrics_port"])
def test_a_port_that_is_taken(cert_dir: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        flag = f"--{option.replace('_', '-')}"
        code, said = start(cert_dir, **{option: port})
        assert code == 2
        assert said == (
            f"plane-webhook: {flag} {port} on 127.0.0.1 can't be listened on (Address already in use): choose another "
            f"{flag} or --host, or end the process that has it\n"
        )


def test_an_address_that_is_not_ours(cert_dir: Path) -> None:
    code, said = start(cert_dir, host="192.0.2.1")
    assert code == 2
    assert said.startswith("plane-webhook: --port 0 on 192.0.2.1 can't be listened on (Cannot assign")


def test_a_host_that_is_none(cert_dir: Path) -> None:
    code, said = start(cert_dir, host="no such host")
    assert (code, said.count("\n")) == (2, 1)


def test_a_port_that_is_none(cert_dir: Path) -> None:
    code, said = start(cert_dir, port=70_000)
    assert (code, said.count("\n")) == (2, 1)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    code, said = start(tmp_path / "typo")
    assert code == 2
    assert said == (
        f"plane-webhook: --cert-dir {tmp_path}/typo can't be read (No such file or directory): mount the Secret with "
        "tls.crt, tls.key and ca.crt there, or make them with `plane-webhook certs issue`\n"
    )


def test_a_directory_that_is_a_file(cert_dir: Path) -> None:
    code, said = start(cert_dir / "tls.crt")
    assert code == 2
    assert "can't be read (Not a directory)" in said
