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
    NOT_KNOWN = "not-known"
    OTHER_MEANS = "other-means"
    NOT_A_PUBLISHER = "not-a-publisher"
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
    PAST_LAUNCHER = "launcher-bypassed"
    BARE_NEIGHBOUR = "neighbour-not-effective"
    UNCOVERED_NEIGHBOUR = "neighbour-not-covered"


SENTENCES: dict[_Code, str] = {
    Reason.INJECTED: "the variables are set and the command is wrapped so that they take effect",
    Reason.ALREADY_INJECTED: "the pod carries the whole injection already",
    Reason.NOT_EFFECTIVE: "the container sets no command that could be wrapped, so nothing is set either, for it would "
    "be in effect in part or not at all; give the container its command",
    Reason.NOT_PLANE: "no container runs an entrypoint or an image of Plane that could publish",
    Reason.NOT_ASKED: "this part of Plane is one that `workloads` in the configuration does not name",
    Reason.NOT_KNOWN: "a container runs an entrypoint that is called like Plane's, or an image of Plane, by a command "
    "that this version does not know; if it publishes tasks they can be lost: see whether a newer version knows it",
    Reason.OTHER_MEANS: "this part of Plane talks to the broker by other means than the API, workers, beat and "
    "consumers do, and nothing here changes those",
    Reason.NOT_A_PUBLISHER: "this part of Plane publishes no tasks",
    Reason.OPTED_OUT: "the pod carries the label plane-webhook/inject: disabled",
    Reason.MOUNT_TAKEN: "the container mounts something of its own at or below /plane-webhook; mount that elsewhere",
    Reason.ANNOTATIONS_FULL: "with ours, the pod's annotations would exceed the 256 KiB that Kubernetes takes; "
    "remove some",
    Reason.POD_TOO_LARGE: "with the injection the pod might exceed what etcd stores; make it smaller",
    Reason.POD_UNREADABLE: "the object in the review does not have the shape of a pod",
    Reason.NOT_A_POD_CREATION: "the review is not about the creation of a pod; the registration should send no other",
    Reason.INTERNAL_ERROR: "a bug in plane-webhook: the pod was let through unchanged; the log has the traceback",
    Risk.UNCONFIRMED: "publisher confirms are off, and so is worker rotation (unless envFrom sets it under "
    "`precedence: chart`): one stale connection then loses each task that goes over it until the kernel gives it up, "
    "minutes later if ever; set publish.confirm: true, or env.gunicorn_max_requests above 0",
    Risk.UNLIMITED: "worker rotation is off (unless envFrom sets it under `precedence: chart`) and the container has "
    "no memory limit, so nothing would end a leak; set resources.limits.memory",
    Risk.PAST_LAUNCHER: "the command may pass the launcher by (a path, `python -m`, a Python with options, a login "
    "shell, another PATH), and then tasks can be lost; gunicorn's limits are not set; start the program by its name",
    Risk.BARE_NEIGHBOUR: "another container of the pod runs Plane too but sets no command that could be wrapped, so "
    "nothing is in effect in that one; give it its command",
    Risk.UNCOVERED_NEIGHBOUR: "another container of the pod is Plane's too and not covered: it publishes by other "
    "means, or by an entrypoint or command that this version does not know",
}
