"""The command line: reads arguments and files, wires the rooms together, turns errors into sentences and exit codes."""

from __future__ import annotations

import argparse
import gc
import os
import re
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from webhook import __version__
from webhook.settings import SettingsError, load

if TYPE_CHECKING:
    from webhook.preview import Source

OK, NOTHING, BAD_INPUT = 0, 1, 2
INTERRUPTED = 128 + signal.SIGINT  # as a shell says it
_UNVERIFIED = "the kubeconfig has insecure-skip-tls-verify: whoever answers is taken for the API server"


def main(arguments: list[str] | None = None) -> int:
    """Run `plane-webhook`; returns the exit code."""
    options, unknown = _parser().parse_known_args(arguments)
    if unknown:  # argparse itself would show how the whole program is called, not this command
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        code: int = options.run(options)
    except (SettingsError, _InputError) as error:
        for line in str(error).splitlines():
            _complain(line)
        return BAD_INPUT
    except BrokenPipeError:  # `| head`: whoever read has seen enough
        _forget_output()
        return OK
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


class _InputError(Exception):
    """Something outside is not as it should be; the text is for the user."""


class _NotTextError(_InputError):
    """A file is no text; `why` goes without its name."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.why = why


def _put(text: str) -> None:
    """Print it, all of it, now: the exit code is about what somebody has got. Raises _InputError, BrokenPipeError."""
    if not sys.stdout:  # closed, as by `>&-`
        raise _InputError("stdout is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (OSError, UnicodeEncodeError) as error:
        _forget_output()
        raise _InputError(f"stdout: can't be written: {getattr(error, 'strerror', None) or error}") from error


def _forget_output() -> None:
    """Python tries once more at its end, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(line: str) -> None:
    if sys.stderr:  # else `print` would take stdout
        print(f"plane-webhook: {line}", file=sys.stderr)


def _serve(options: argparse.Namespace) -> int:
    gc.disable()  # until it serves: what is imported stays, and the collector would walk it again and again
    from webhook.server import serve  # noqa: PLC0415 - FastAPI's import costs more than any other command takes

    return serve(
        load(options.config),
        cert_dir=options.cert_dir,
        host=options.host,
        port=options.port,
        metrics_port=options.metrics_port,
    )


def _preview(options: argparse.Namespace) -> int:
    from webhook.manifest import ManifestError  # noqa: PLC0415 - `serve` needs none of it
    from webhook.preview import Source, preview, shown  # noqa: PLC0415

    settings = load(options.config)
    files = [file for name in options.files or ["-"] for file in _files(name)]
    try:
        sources = [_source(Source, name, from_folder) for name, from_folder in files]
        result = preview(sources, settings, namespace=options.namespace or "")
    except ManifestError as error:
        raise _InputError(shown.printable(str(error))) from error
    terminal = bool(sys.stdout) and sys.stdout.isatty()
    colour = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    yaml = options.output == "yaml"
    _put(shown.FORMS[options.output](result, colour=colour) + ("" if yaml else "\n"))
    for each in result.unjudged if yaml else ():  # what is to be applied has no place for it
        _complain(shown.printable(str(each)))
    return OK if result.reached else NOTHING


def _source(made: type[Source], name: str, from_folder: bool) -> Source:  # noqa: FBT001 - of a pair
    """The manifest; what a folder brought along and is no text is for `preview` to name."""
    try:
        return made(name, _read(name), from_folder)
    except _NotTextError as error:
        if not from_folder:
            raise
        return made(name, "", from_folder, error.why)


def _files(name: str) -> list[tuple[str, bool]]:
    """The file, or the manifests in a folder and below it; and whether they come from one."""
    folder = Path(name)
    if name == "-" or not folder.is_dir():
        return [(name, False)]
    named = (each for each in folder.rglob("*") if each.suffix in (".yaml", ".yml", ".json"))
    # No folder of that name, and no pipe, which would be waited for; a link that leads nowhere is one to complain of.
    inside = sorted(each.relative_to(folder) for each in named if each.is_file() or not each.exists())
    found = [(str(folder / each), True) for each in inside if not any(part.startswith(".") for part in each.parts)]
    if not found:
        raise _InputError(f"{name}: no file in this folder ends in .yaml, .yml or .json")
    return found


def _read(name: str) -> str:
    if name == "-" and not sys.stdin:
        raise _InputError("stdin is closed")
    try:
        return (sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()).decode()
    except OSError as error:
        raise _InputError(f"{name}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _NotTextError(name, f"not UTF-8 text: {error}") from error


def _issue(options: argparse.Namespace) -> int:
    import certs  # noqa: PLC0415 - cryptography is for this command alone

    try:
        kept = certs.issue(options.dir, options.host, days=options.days, force=options.force, now=datetime.now(UTC))
    except (certs.CertificateError, OSError) as error:
        raise _InputError(str(error)) from error
    # A pair is replaced without a gap only where the old authority stays for a while, and it may not have been there.
    before = "keeps the authority of before" if kept else "has no authority of before: none was there that still holds"
    said = f"; ca.crt {before}" if options.force else ""
    print(f"wrote tls.crt, tls.key and ca.crt to {options.dir}{said}", file=sys.stderr)
    return OK


def _registration(options: argparse.Namespace) -> int:
    import certs  # noqa: PLC0415
    from webhook.cluster import registration  # noqa: PLC0415
    from webhook.manifest import dump  # noqa: PLC0415

    try:
        client_config = registration.service(options.service) if options.service else registration.url(options.url)
        bundle = certs.bundle(_read(str(options.ca_file)).encode())
    except (registration.RegistrationError, certs.CertificateError) as error:
        where = f"{options.ca_file}: " if isinstance(error, certs.CertificateError) else ""
        raise _InputError(f"{where}{error}") from error
    made = registration.manifest(
        load(options.config), client_config=client_config, ca_bundle=bundle, failure_policy=options.failure_policy
    )
    _put(dump(made))
    return OK


def _operate(options: argparse.Namespace) -> int:
    from webhook.cluster.api import Api, ApiError  # noqa: PLC0415 - the client's import takes longer than most commands
    from webhook.cluster.operate import Options, operate  # noqa: PLC0415
    from webhook.listening import PortError  # noqa: PLC0415

    try:
        api = Api.connect(options.kubeconfig)
    except ApiError as error:
        raise _InputError(str(error)) from error
    if not api.verified:
        _complain(_UNVERIFIED)
    told = Options(
        namespace=options.namespace,
        secret=options.secret,
        manage_certificates=options.certificates == "manage",
        metrics_host=options.host,
        metrics_port=options.metrics_port,
    )
    try:
        return operate(api, load(options.config), told)
    except PortError as error:
        raise _InputError(str(error)) from error


def _kubeconfig() -> Path | None:
    """The one that kubectl would take, also in a pod; None where there is none."""
    # os.path's, for pathlib's raise where there is no home, or it may not be looked into.
    named, default = os.environ.get("KUBECONFIG"), os.path.expanduser("~/.kube/config")  # noqa: PTH111
    return Path(named) if named else Path(default) if os.path.exists(default) else None  # noqa: PTH110


def _doctor(options: argparse.Namespace) -> int:
    from webhook.cluster import doctor  # noqa: PLC0415
    from webhook.cluster.api import Api, ApiError  # noqa: PLC0415

    try:
        api = Api.connect(options.kubeconfig or _kubeconfig(), options.context)
        if not api.verified:
            _complain(_UNVERIFIED)
        report = doctor.examine(api, options.webhook_namespace, options.namespace, execute=options.exec)
    except ApiError as error:
        raise _InputError(f"could not look: {error}") from error
    _put((doctor.as_json if options.output == "json" else doctor.shown)(report) + "\n")
    return NOTHING if report.problems else OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="plane-webhook", description="Makes Plane's pods publish every background task."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str, to: Any = commands) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = to.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(run=run, parser=made)
        return made

    def takes_config(made: argparse.ArgumentParser) -> None:
        made.add_argument("--config", type=_path, metavar="FILE", help="the configuration (default: the defaults)")

    serve = command("serve", _serve, "answer the API server's admission reviews")
    takes_config(serve)
    serve.add_argument(
        "--cert-dir", type=_path, required=True, metavar="DIR", help="has tls.crt, tls.key and, if there is one, ca.crt"
    )
    serve.add_argument("--host", default="", help="address to listen on (default: all, IPv4 and IPv6)")
    serve.add_argument("--port", type=_port, default=8443, help="HTTPS port (default: %(default)s)")
    serve.add_argument("--metrics-port", type=_port, default=9090, help="plain HTTP port (default: %(default)s)")

    operator = command(
        "operate",
        _operate,
        "keep certificate and registration right, tell of pods that slipped by or whose log says NOT IN EFFECT, and "
        "evict those that slipped by or have other settings where a namespace asks for it; needs rights in the cluster",
    )
    takes_config(operator)
    operator.add_argument(
        "--namespace", type=_namespace, required=True, metavar="NAME", help="the webhook's own namespace"
    )
    operator.add_argument(
        "--secret", type=_object, default="plane-webhook-tls", metavar="NAME", help="its Secret (default: %(default)s)"
    )
    operator.add_argument(
        "--certificates",
        choices=("manage", "watch"),
        default="manage",
        help="manage: make and renew them, and fill in the registration; watch: somebody else does, only tell how long "
        "they hold (default: %(default)s)",
    )
    operator.add_argument(
        "--kubeconfig", type=_path, metavar="FILE", help="outside of a pod (default: the pod's account, or KUBECONFIG)"
    )
    operator.add_argument("--host", default="", help="address for metrics (default: all, IPv4 and IPv6)")
    operator.add_argument("--metrics-port", type=_port, default=9090, help="plain HTTP port (default: %(default)s)")

    doctor = command("doctor", _doctor, "say what is wrong in a cluster, and how to put it right; changes nothing")
    doctor.add_argument(
        "-n", "--namespace", type=_namespace, metavar="NAME", help="Plane's (default: all that are opted in)"
    )
    doctor.add_argument(
        "--webhook-namespace",
        type=_namespace,
        default="plane-webhook",
        metavar="NAME",
        help="the webhook's (default: %(default)s)",
    )
    doctor.add_argument(
        "--kubeconfig", type=_path, metavar="FILE", help="whose rights (default: KUBECONFIG, as kubectl)"
    )
    doctor.add_argument("--context", metavar="NAME", help="the kubeconfig's context (default: the current one)")
    doctor.add_argument(
        "--exec", action="store_true", help="also run /plane-webhook/proof in each injected container (needs pods/exec)"
    )
    doctor.add_argument("--output", choices=("text", "json"), default="text", help="(default: %(default)s)")

    preview = command("preview", _preview, "show what the webhook would do to the workloads in manifests")
    preview.epilog = "Exits 0 where one at least is or would be injected, 1 where none, 2 where it can't read or write."
    takes_config(preview)
    preview.add_argument(
        "files", nargs="*", type=_file, metavar="FILE", help="manifests or folders of them; - or none: stdin"
    )
    preview.add_argument(
        "--namespace",
        type=_namespace,
        metavar="NAME",
        help="the namespace of manifests that name none, as in helm template",
    )
    preview.add_argument(
        "--output",
        choices=("diff", "summary", "yaml", "json"),
        default="diff",
        help="diff: what would change; summary: a table; yaml: all of it, to be applied; json: for programs "
        "(default: %(default)s)",
    )

    certificates = commands.add_parser("certs", help="make certificates")
    kinds = certificates.add_subparsers(required=True, metavar="COMMAND")
    issue = command("issue", _issue, "make a certificate authority and a server certificate", to=kinds)
    issue.add_argument("--dir", type=_path, required=True, metavar="DIR", help="where the files go")
    issue.add_argument("--host", action="append", required=True, metavar="NAME", help="DNS name or address; repeatable")
    issue.add_argument("--days", type=int, default=365, help="how long they hold (default: %(default)s)")
    issue.add_argument("--force", action="store_true", help="replace files that are there")

    register = command("registration", _registration, "print the MutatingWebhookConfiguration")
    takes_config(register)
    where = register.add_mutually_exclusive_group(required=True)
    where.add_argument("--service", metavar="NAMESPACE/NAME", help="the Service in front of the webhook")
    where.add_argument("--url", help="where the API server reaches a webhook outside the cluster")
    register.add_argument("--ca-file", type=_path, required=True, metavar="FILE", help="ca.crt: who signed the server")
    register.add_argument(
        "--failure-policy",
        choices=("Ignore", "Fail"),
        default="Ignore",
        help="what becomes of Plane's pods while nothing answers: created unchanged, or refused (default: %(default)s)",
    )
    return parser


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= 65535:  # noqa: PLR2004 - TCP's own limit; 0 takes a free one
        raise argparse.ArgumentTypeError(f"{text} is not a port: expected 0 to 65535")
    return number


def _file(text: str) -> str:
    if not text:  # as of a variable that is not set; Path would take it for the folder we are in
        raise argparse.ArgumentTypeError("'' is no path")
    return text


def _path(text: str) -> Path:
    return Path(_file(text))


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no namespace's name: up to 63 of a-z, 0-9 and -, which stands at neither end"
        )
    return text


def _object(text: str) -> str:
    if len(text) > 253 or not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", text):  # noqa: PLR2004 - Kubernetes' own
        raise argparse.ArgumentTypeError(
            f"{text!r} is no Secret's name: up to 253 of a-z, 0-9, - and ., which stand at neither end"
        )
    return text
