# The builder and the image are the same Python, so that what is compiled for the one runs on the other. From a mirror, or
# hardened: docker build --build-arg PYTHON=...
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS builder
WORKDIR /src
COPY requirements/runtime.txt requirements/runtime.txt
# Without pip, which the webhook never calls.
RUN python -m venv --without-pip /venv && \
    pip --python /venv/bin/python install --no-cache-dir --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY webhook webhook
COPY certs certs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . && \
    pip --python /venv/bin/python install --no-cache-dir --no-deps /wheel/*.whl

FROM ${PYTHON}
COPY --from=builder /venv /venv
USER 65532:65532
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8443 9090
ENTRYPOINT ["/venv/bin/plane-webhook"]
CMD ["--help"]
