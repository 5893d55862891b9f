"""What can become of a pod, and what its operator should hear of it: one table of codes and sentences.

Log lines, metrics, admission warnings, `preview` and the documentation all read from here.
"""

from enum import StrEnum


class _Code(StrEnum):
    @property
    def sentence(self) -> str:
        """What the code means and what to do about it."""
        return SENTENCES[self]


class Reason(_Code):
    """Why a review was answered as it was; the value is the code that users see."""

    INJECTED = "injected"
    ALREADY_INJECTED = "already-injected"
    NOT_EFFECTIVE = "not-effective"
    NOT_PLANE = "not-plane"
    NOT_ASKED = "not-asked"
    OPTED_OUT = "opted-out"
    MOUNT_TAKEN = "mount-taken"
    ANNOTATIONS_FULL = "annotations-full"
    POD_TOO_LARGE = "pod-too-large"
    POD_UNREADABLE = "pod-unreadable"
    NOT_A_POD_CREATION = "not-a-pod-creation"
    INTERNAL_ERROR = "internal-error"


class Risk(_Code):
    """A way of losing tasks, or of filling a node, that the settings or the pod leave open."""

    UNCONFIRMED = "rotation-off-unconfirmed"
    UNLIMITED = "rotation-off-no-memory-limit"
    BARE_NEIGHBOUR = "neighbour-not-effective"


SENTENCES: dict[_Code, str] = {
    Reason.INJECTED: "the variables are set and the command is wrapped so that they take effect",
    Reason.ALREADY_INJECTED: "the pod carries the whole injection already",
    Reason.NOT_EFFECTIVE: "the container sets no command that could be wrapped, so nothing makes the variables take "
    "effect; give the container its command",
    Reason.NOT_PLANE: "no container runs an entrypoint of Plane",
    Reason.NOT_ASKED: "this entrypoint of Plane is one that `workloads` in the configuration does not name",
    Reason.OPTED_OUT: "the pod carries the label plane-webhook/inject: disabled",
    Reason.MOUNT_TAKEN: "the container mounts something of its own at or below /plane-webhook; mount that elsewhere",
    Reason.ANNOTATIONS_FULL: "with ours, the pod's annotations would exceed the 256 KiB that Kubernetes takes; "
    "remove some",
    Reason.POD_TOO_LARGE: "with the injection the pod might exceed what etcd stores; make it smaller",
    Reason.POD_UNREADABLE: "the object in the review does not have the shape of a pod",
    Reason.NOT_A_POD_CREATION: "the review is not about the creation of a pod; the registration should send no other",
    Reason.INTERNAL_ERROR: "a bug in plane-webhook: the pod was let through unchanged; the log has the traceback",
    Risk.UNCONFIRMED: "worker rotation is off and so are publisher confirms: one stale connection then loses every "
    "task for as long as the worker lives; set publish.confirm: true, or env.gunicorn_max_requests above 0",
    Risk.UNLIMITED: "worker rotation is off and the container has no memory limit, so nothing would end a leak; set "
    "resources.limits.memory",
    Risk.BARE_NEIGHBOUR: "another container of the pod runs Plane too but sets no command that could be wrapped, so "
    "nothing makes the variables take effect in that one; give it its command",
}
