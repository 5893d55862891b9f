# The builder and the image are the same Python, so that what is compiled for the one runs on the other.
FROM python:3.13-slim AS builder
WORKDIR /src
COPY requirements/runtime.txt requirements/runtime.txt
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY webhook webhook
COPY certs certs
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . && /venv/bin/pip install --no-cache-dir --no-deps /wheel/*.whl

FROM python:3.13-slim
COPY --from=builder /venv /venv
USER 65532:65532
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8443 9090
ENTRYPOINT ["/venv/bin/plane-webhook"]
CMD ["--help"]
