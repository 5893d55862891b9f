"""The floor: raw ASGI on uvicorn as we run it, which reads a review and sends the same bytes each time.

python -m bench.peers.floor ANSWER CERT KEY PORT [echo]

`echo`: with the uid of the review, without which an API server takes no answer.
"""

import re
import sys
from pathlib import Path

import uvicorn


def main() -> None:
    """Serve until it is killed."""
    answer, cert, key, port, *echo = sys.argv[1:]
    # glibc takes more memory from the kernel and gives it back at each answer, until a process has once freed something
    # large, as ours has when it was imported: a fifth of the floor's time.
    bytes(4 << 20)
    body = Path(answer).read_bytes()
    start = {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))],
    }
    end = {"type": "http.response.body", "body": body}

    async def fixed(_scope: object, receive: object, send: object) -> None:
        while (await receive()).get("more_body"):  # type: ignore[operator]
            pass
        await send(start)  # type: ignore[operator]
        await send(end)  # type: ignore[operator]

    uid = re.compile(rb'"uid": ?"([^"]{36})"')
    before, _, after = body.partition(uid.search(body)[1])  # type: ignore[index]

    async def echoing(_scope: object, receive: object, send: object) -> None:
        more, review = True, b""
        while more:
            message = await receive()  # type: ignore[operator]
            review, more = review + message["body"], message["more_body"]
        await send(start)  # type: ignore[operator]
        await send({**end, "body": before + uid.search(review)[1] + after})  # type: ignore[index, operator]

    serve(echoing if echo else fixed, cert, key, port)


def serve(app: object, cert: str, key: str, port: str) -> None:
    """Run an app in the fastest way that uvicorn has."""
    uvicorn.run(
        app,  # type: ignore[arg-type]
        port=int(port),
        ssl_certfile=cert,
        ssl_keyfile=key,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_keep_alive=120,
    )


if __name__ == "__main__":
    main()
