"""The API server as bytes: requests with a timeout, and answers whose status is looked at.

The only module that imports the kubernetes client, for what it knows best: kubeconfigs, service accounts, credential
plugins, proxies. Its models are left alone: they cost tens of MB and drop fields that they don't know.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlencode

import kubernetes.client
import kubernetes.config
import msgspec
import urllib3

from webhook import __version__

# Seconds to connect, and between two bytes of an answer. An API server that is asked for one object needs milliseconds.
TIMEOUT = urllib3.Timeout(connect=5.0, read=10.0)
_LONGEST_REFUSAL = 64 * 1024  # bytes that are read of one; a Status has some hundred
_KUBECONFIG = "~/.kube/config"  # where nobody names one, as with kubectl
_APPLY = "application/apply-patch+yaml"  # JSON is YAML


class ApiError(Exception):
    """The API server refused, or could not be reached; the text says what was asked and what it said.

    `status` is the HTTP status, 0 where there was no answer.
    """

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status

    @property
    def lacks_right(self) -> bool:
        """Whether it is a right that is missing: a quota, Pod Security and policies refuse a pod by the same status."""
        return self.status == HTTPStatus.FORBIDDEN and ' is forbidden: User "' in str(self)

    @property
    def refuses(self) -> bool:
        """Whether something in the cluster refuses the object: a quota, Pod Security, a policy, somebody's webhook."""
        others = (HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.TOO_MANY_REQUESTS)
        answered = HTTPStatus.BAD_REQUEST <= self.status <= HTTPStatus.INTERNAL_SERVER_ERROR
        return answered and self.status not in others and not self.lacks_right


class Ended(msgspec.Struct, frozen=True):
    """What a command in a container left: its exit code (-1 where it could not be started), and what it printed.

    `cut`: it printed more than was asked for, or did not end in time.
    """

    code: int
    output: bytes
    failure: bytes
    cut: bool = False


class Api:
    """One cluster, as one user."""

    def __init__(self, configuration: kubernetes.client.Configuration) -> None:
        # Nothing is asked twice behind our back: each pass asks again by itself.
        configuration.retries = urllib3.Retry(0)
        self._configuration = configuration
        self.verified = bool(configuration.verify_ssl)  # whether who answers is looked at; whoever may print says so
        if not self.verified:  # else it complains of each request
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        self._pool = kubernetes.client.ApiClient(configuration).rest_client.pool_manager
        self.date: datetime | None = None  # by the API server's clock, of its last answer; None: it named none

    @classmethod
    def connect(cls, kubeconfig: Path | None = None, context: str | None = None) -> Api:
        """By a kubeconfig; with None as the pod's service account or, outside of a pod, by the user's own kubeconfig.

        Raises ApiError.
        """
        configuration = kubernetes.client.Configuration()
        named = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or _KUBECONFIG
        try:
            try:
                if kubeconfig or context:
                    raise kubernetes.config.ConfigException  # noqa: TRY301 - asked for by name
                kubernetes.config.load_incluster_config(client_configuration=configuration)
            except kubernetes.config.ConfigException:
                with _logged() as complaints:
                    kubernetes.config.load_kube_config(
                        config_file=named, context=context, client_configuration=configuration
                    )
                if complaints:
                    raise kubernetes.config.ConfigException(f"its credential plugin fails: {complaints[0]}") from None
                if not configuration.host.startswith(("https://", "http://")):
                    raise kubernetes.config.ConfigException(
                        f"its server is {configuration.host!r}, no https:// address"
                    ) from None
        except Exception as error:  # the client raises whatever its parts raise
            raise ApiError(f"no cluster to talk to: {_unusable(named, error)}") from error
        return cls(configuration)

    def find(self, path: str, **query: str) -> bytes | None:
        """The JSON of an object or list; None where it is not there. Raises ApiError."""
        try:
            return self.request("GET", path, query=query)
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def apply(self, path: str, manifest: Mapping[str, Any], *, manager: str) -> bytes:
        """Server-side apply; a resourceVersion in its metadata fails where somebody wrote since. Raises ApiError."""
        query = {"fieldManager": manager, "force": "true"}
        return self.request("PATCH", path, query=query, body=msgspec.json.encode(manifest), kind=_APPLY)

    def rehearse(self, namespace: str, metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> bytes:
        """The pod as it would be made now: a server-side dry run, of which nothing stays. Raises ApiError."""
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/pods"
        return self.request("POST", path, query={"dryRun": "All"}, body=msgspec.json.encode(pod))

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        kind: str = "application/json",
        accept: str = "application/json",
    ) -> bytes:
        """The JSON object of a successful answer. Raises ApiError."""
        with self._asked(method, path, query, body=body, kind=kind, accept=accept) as answer:
            found: bytes = answer.read()
        if not found.lstrip().startswith(b"{"):  # a proxy's page of its own, or another server: all goes well there
            shown = ascii(found[:60].decode(errors="replace"))
            raise ApiError(
                f"{method} {path}: {self._configuration.host} answers, and not as an API server does: {shown}. Is its "
                "address right, and is no proxy in between?"
            )
        return found

    def beginning(self, path: str, *, query: Mapping[str, str], limit: int, seconds: float) -> bytes:
        """Of a text that others write, at most `limit` bytes of what comes within `seconds`. Raises ApiError."""
        deadline, text = time.monotonic() + seconds, b""
        with self._asked("GET", path, query, timeout=urllib3.Timeout(connect=seconds, read=seconds)) as answer:
            while len(text) < limit and time.monotonic() < deadline and (more := answer.read1(limit - len(text))):
                text += more
        return text

    @contextlib.contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        kind: str = "application/json",
        accept: str = "application/json",
        timeout: urllib3.Timeout = TIMEOUT,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """A successful answer, whose body is still to be read. Raises ApiError, for what is done with it too."""
        headers = {"accept": accept, "content-type": kind, "user-agent": f"plane-webhook/{__version__}"}
        where = f"{path}?{urlencode(query)}" if query else path
        try:
            if authorization := self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization"):
                headers["authorization"] = authorization
            answer = self._pool.request(
                method,
                f"{self._configuration.host}{where}",
                body=body,
                headers=headers,
                timeout=timeout,
                redirect=False,
                preload_content=False,
            )
            self.date = _date(answer.headers.get("date"))
            try:
                if answer.status >= HTTPStatus.BAD_REQUEST:
                    said = _message(answer.read(_LONGEST_REFUSAL))
                    raise ApiError(f"{method} {where}: {answer.status} {said}".strip(), answer.status)
                yield answer
            finally:
                answer.close()  # what is left of it is not waited for
                answer.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ApiError(f"{method} {where}: no answer: {_short(error)}") from error

    def execute(
        self, namespace: str, pod: str, container: str, command: Sequence[str], *, limit: int, seconds: float
    ) -> Ended:
        """Run a command in a container, without input: at most `limit` bytes and `seconds`. Raises ApiError."""
        import websocket  # noqa: PLC0415 - `operate` needs neither
        from kubernetes.stream.ws_client import create_websocket  # noqa: PLC0415

        query = [
            ("container", container),
            ("stdout", "true"),
            ("stderr", "true"),
            *(("command", each) for each in command),
        ]
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec"
        url = f"{self._configuration.host}{path}?{urlencode(query)}".replace("http", "ws", 1)
        headers = {"sec-websocket-protocol": "v4.channel.k8s.io"}
        if authorization := self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization"):
            headers["authorization"] = authorization
        try:
            deadline = time.monotonic() + seconds
            connection = _within(seconds, lambda: create_websocket(self._configuration, url, headers))
            try:
                channels, cut = _channels(connection, limit=limit, deadline=deadline)
            finally:
                connection.shutdown()  # without waiting for an answer
        except websocket.WebSocketBadStatusException as error:
            said = _message(error.resp_body or b"")
            raise ApiError(f"POST {path}: {error.status_code} {said}".strip(), error.status_code) from error
        except (websocket.WebSocketException, OSError) as error:
            raise ApiError(f"POST {path}: no answer: {_short(error)}") from error
        code, why = _exit(channels[_ERROR])
        return Ended(code, bytes(channels[_OUT]), bytes(channels[_ERR]) or why.encode(), cut)


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    """What the client says in the log alone: that a credential plugin fails, after which it would ask as nobody."""
    kept, log = _Kept(), logging.getLogger()
    before, log.handlers = log.handlers, [kept]
    try:
        yield kept.messages
    finally:
        log.handlers = before


def _unusable(named: str, error: Exception) -> str:
    """What is wrong with a kubeconfig, or with each of several, as one line."""
    if not any(os.path.exists(os.path.expanduser(each)) for each in named.split(os.pathsep) if each):  # noqa: PTH110, PTH111 - as the client does
        return f"{named}: there is no such file. Name another with --kubeconfig or KUBECONFIG"
    said = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, AttributeError | LookupError | TypeError):  # whatever the client met first
        said = "it has another shape than one"
    return f"{named}: can't be used as a kubeconfig: {said or type(error).__name__}"


def _within(seconds: float, connect: Callable[[], Any]) -> Any:
    """What `connect` returns or raises, or TimeoutError.

    The client's WebSocket takes no timeout for its handshake, and waits for ever for a server that says nothing: in a
    thread that is left to itself then.
    """
    made: Future[Any] = Future()

    def run() -> None:
        try:
            made.set_result(connect())
        except BaseException as error:  # noqa: BLE001 - for whoever waits
            made.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return made.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"none within {seconds:.0f} seconds") from error


# https://kubernetes.io/docs/reference/using-api/websockets: the first byte of a frame says which stream it is of.
_OUT, _ERR, _ERROR = 1, 2, 3


def _channels(connection: Any, *, limit: int, deadline: float) -> tuple[dict[int, bytearray], bool]:
    """What came on each stream until the command ended, and whether that was before its end.

    Frame by frame: the client's own loop takes all that comes before it looks at a clock.
    """
    import websocket  # noqa: PLC0415

    channels = {_OUT: bytearray(), _ERR: bytearray(), _ERROR: bytearray()}
    while sum(map(len, channels.values())) <= limit:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            kind, frame = connection.recv_data_frame(control_frame=True)
        except websocket.WebSocketTimeoutException:
            break
        if kind == websocket.ABNF.OPCODE_CLOSE:
            return channels, False
        if frame.data and frame.data[0] in channels:
            channels[frame.data[0]] += frame.data[1:]
    return channels, True


class _Cause(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct):
    causes: list[_Cause] = []


def _date(header: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(header) if header else None
    except ValueError:
        return None


class _Status(msgspec.Struct):
    message: str = ""
    status: str = ""
    details: _Details | None = None


def _exit(body: bytes | bytearray) -> tuple[int, str]:
    """A command's exit code by the Status that comes when it has ended, and why it is -1 where it is."""
    try:
        status = msgspec.json.decode(body, type=_Status)
        codes = [int(each.message) for each in (status.details or _Details()).causes if each.reason == "ExitCode"]
    except (msgspec.MsgspecError, ValueError):
        return -1, "it did not say how it ended"
    if status.status == "Success":
        return 0, ""
    return (codes[0], "") if codes else (-1, status.message)


def _message(body: bytes) -> str:
    """What a failure says of itself: the API server sends a Status."""
    try:
        return msgspec.json.decode(body, type=_Status).message
    except msgspec.MsgspecError:
        return body[:200].decode(errors="replace")


def _short(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    return str(reason or error)[:300]
