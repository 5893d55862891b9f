"""Every number that the server is bounded by, each with its argument.

The port is open to whatever can reach the pod, and no client certificate is asked for: what a stranger sends may cost
bounded memory and bounded time, and never a process.
"""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes and seconds. The defaults are what is deployed; tests shorten the seconds."""

    # kube-apiserver reads requests of up to 3 MiB (k8s.io/apiserver, MaxRequestBodyBytes). Go's JSON encoder then
    # writes at most 6 bytes for one that came in (`<` and control characters become \u003c, \u0001): 18 MiB. The keys
    # of managedFields may repeat the same bytes as an escaped string in a string, 7 for one: 21 MiB. User, options
    # and names are headers of the API request, 1 MiB at most. Only what defaults multiply (tens of thousands of ports)
    # could be longer still. Measured: whatever etcd stores, 1.5 MiB, makes a review of 9 MiB at the most, and a longer
    # one is of a pod that is refused however it was admitted.
    body: int = 40 * MIB

    # All bodies that are being read, together. One of the largest must fit; real ones (4 to 300 kB) fit by the
    # hundred, and mostly arrive at once, which this does not even count. The process takes 65 MiB at rest; one body
    # of the largest is joined and read at a time, on top of these.
    bodies: int = 64 * MIB

    # What isn't body in one request: request line, headers, chunk sizes, trailers. The API server sends about 300 B.
    head: int = 64 << 10

    # Connections at a time, about 20 kB each. An API server pools 25 idle ones and opens no more than it has
    # mutating requests in flight (200 by default; a cluster has 3 or 5 API servers, one busy).
    connections: int = 1000

    # From the first byte of a request to its last. An API server on the same network needs milliseconds and gives up
    # after 10 s by default: what has not come after half of that is a stranger who trickles.
    request_seconds: float = 5

    # kube-apiserver keeps an idle connection for 90 s and does not retry a POST on one that was closed under it: the
    # server must be the one that waits longer, by more than any pause of either process.
    keep_alive_seconds: int = 120

    # After SIGTERM: stay as long as it may take until every node has heard that this endpoint is gone (usually under a
    # second or two), or until a readiness probe has failed three times (6 s); anew with each review that comes.
    quiet_seconds: float = 10

    # After SIGTERM at the latest: the 90 s after which the last connection that the API server pools has been used,
    # and so closed by our answer, or closed by itself; and a margin.
    drain_seconds: float = 95

    # When leaving: for answers that are on their way. They take microseconds, the network milliseconds.
    farewell_seconds: float = 1

    # How often the certificate's files are read. The kubelet itself takes up to a minute or so to bring a new Secret.
    poll_seconds: float = 1
