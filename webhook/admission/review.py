"""AdmissionReview (admission.k8s.io/v1) bytes to values, and values to bytes.

Decodes only the fields that decide something: the rest of the pod is never built as Python objects, so a large pod
costs little and nothing unknown can be dropped. Every field of a pod may be absent or null, as in any JSON.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Generic, TypeVar

import msgspec

# More than twice what could be injected is not even read: as objects, a crafted pod of 40 MB would take ten times that.
UNREAD = 4 * 1024 * 1024

# Up to this, review and pod are read in one go. Of a longer one the pod's own length may decide, and is found first.
_AT_ONCE = 1280 * 1024


class MalformedReview(ValueError):  # noqa: N818 - reads as what it is where it is caught
    """The bytes are no AdmissionReview that can be answered; the text says why."""


class _Fields(msgspec.Struct, gc=False, omit_defaults=True):
    """Fields of JSON; not followed by the cyclic collector, for they form trees."""


class EnvVar(_Fields):
    """An environment variable of a container; `value` is None where it comes from elsewhere (valueFrom)."""

    name: str | None = None
    value: str | None = None


class Mount(_Fields, rename="camel"):
    """A volume mount."""

    name: str | None = None
    mount_path: str | None = None
    read_only: bool | None = None
    sub_path: str | None = None
    sub_path_expr: str | None = None


class Device(_Fields, rename="camel"):
    """A block device; its path may not be a mount's too."""

    device_path: str | None = None


class Resources(_Fields):
    """Resource limits of a container, or of the whole pod."""

    limits: dict[str, Any] | None = None


class Container(_Fields, rename="camel"):
    """A container, as far as it decides something."""

    # A DNS label, as Kubernetes demands. The bound also keeps a hostile name out of the caches of patches.
    name: Annotated[str, msgspec.Meta(max_length=63)] | None = None
    image: str | None = None
    restart_policy: str | None = None  # of an init container: `Always` makes it a sidecar
    command: list[str] | None = None
    args: list[str] | None = None
    env: list[EnvVar] | None = None
    volume_mounts: list[Mount] | None = None
    volume_devices: list[Device] | None = None
    resources: Resources | None = None


class Volume(_Fields, rename="camel"):
    """A volume; only emptyDirs are told from the rest."""

    name: str | None = None
    empty_dir: dict[str, Any] | None = None


class Spec(_Fields, rename="camel"):
    """The pod's spec."""

    containers: list[Container] | None = None
    init_containers: list[Container] | None = None
    volumes: list[Volume] | None = None
    resources: Resources | None = None


class Metadata(_Fields, rename="camel"):
    """The pod's metadata."""

    name: str | None = None
    generate_name: str | None = None
    labels: dict[str, str | None] | None = None
    annotations: dict[str, str | None] | None = None


class Pod(_Fields):
    """A pod, or a pod template."""

    metadata: Metadata | None = None
    spec: Spec | None = None


class _Resource(_Fields):
    group: str = ""
    resource: str = ""


class Request(_Fields, rename="camel"):
    """What the API server asks, without the object that it asks about."""

    uid: str
    resource: _Resource | None = None
    sub_resource: str | None = None
    name: str | None = None
    namespace: str | None = None
    operation: str | None = None
    dry_run: bool | None = None

    @property
    def creates_pod(self) -> bool:
        """Whether this is what the registration asks the API server to send."""
        resource = self.resource or _Resource()
        return (
            self.operation == "CREATE" and (resource.group, resource.resource) == ("", "pods") and not self.sub_resource
        )


_R = TypeVar("_R", bound=Request)


class _PodRequest(Request):
    object: Pod | None = None


class _AnyRequest(Request):
    object: msgspec.Raw = msgspec.Raw(b"null")


class _Review(_Fields, Generic[_R], rename="camel"):
    api_version: str
    kind: str
    request: _R


_about_pod = msgspec.json.Decoder(_Review[_PodRequest])
_about_any = msgspec.json.Decoder(_Review[_AnyRequest])
_pod = msgspec.json.Decoder(Pod)
_encode = msgspec.json.Encoder().encode

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def parse(body: bytes) -> tuple[Request, Pod | None, int]:
    """Return the request in an AdmissionReview, its pod, and the pod's bytes as JSON, at the most.

    None for what is no pod, or longer than UNREAD. Raises MalformedReview.
    """
    if len(body) <= _AT_ONCE:
        try:
            request = _checked(_about_pod.decode(body))
        except _UNREADABLE:  # as it may be about something else
            pass
        else:
            return request, request.object, len(body)
    unread = envelope(body)
    size = len(unread.object)
    return unread, parse_pod(unread.object) if unread.creates_pod and size <= UNREAD else None, size


def envelope(body: bytes) -> _AnyRequest:
    """Return the request in an AdmissionReview with its object unread. Raises MalformedReview."""
    try:
        return _checked(_about_any.decode(body))
    except _UNREADABLE as error:
        raise MalformedReview(f"not an AdmissionReview: {error}") from error


def _checked(review: _Review[_R]) -> _R:
    if (review.api_version, review.kind) != ("admission.k8s.io/v1", "AdmissionReview"):
        raise MalformedReview(
            f"expected an AdmissionReview of admission.k8s.io/v1, found {review.kind!r} of {review.api_version!r}"
        )
    if not review.request.uid:
        raise MalformedReview("the request has no uid to answer to")
    return review.request


def parse_pod(raw: bytes | msgspec.Raw) -> Pod | None:
    """Return the pod, or None where the JSON has another shape."""
    try:
        return _pod.decode(raw)
    except _UNREADABLE:
        return None


END = b"}}"  # of a response without a patch


def ending(operations: list[dict[str, Any]]) -> bytes:
    """The end of a response whose patch are these JSON Patch operations (RFC 6902)."""
    return b',"patchType":"JSONPatch","patch":"%s"%s' % (base64.b64encode(_encode(operations)), END)


def response(uid: str, *, reason: str, warnings: tuple[str, ...] = (), end: bytes = END) -> tuple[bytes, bytes]:
    """Encode the AdmissionReview that allows the pod. `end`, of `ending`, stays by itself: it is long, and kept."""
    said = (b'},"warnings":', _encode(warnings)) if warnings else (b"}",)
    start = (
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":',
        _encode(uid),
        b',"allowed":true,"auditAnnotations":{"reason":',
        _encode(reason),
        *said,
    )
    return b"".join(start), end
