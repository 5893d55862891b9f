# PYTHON builds and BASE runs: the same Python at the same place, so that what is made with the one works on the other. PYTHON
# needs venv, BASE not even a shell. From a mirror: docker build --build-arg PYTHON=... ; with a hardened pair, --build-arg BASE=... too.
ARG PYTHON=python:3.13-slim
ARG BASE=without-pip

FROM ${PYTHON} AS builder
WORKDIR /src
# pip, as it runs, would leave compiled files of what it happens to import, with the time in them.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
COPY requirements/build.txt requirements/runtime.txt requirements/
# Of the kubernetes client what nothing here imports goes: a second client and a class for each kind of object, 102 MB. So
# do the packages that this second client alone wants: aiohttp and its own.
# Packages from an index of your own: --secret id=pip.conf,src=pip.conf. It is in no layer.
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    python3 -m venv /build && /build/bin/pip install --require-hashes -r requirements/build.txt && \
    python3 -m venv --without-pip /venv && \
    /build/bin/pip --python /venv/bin/python3 install --no-compile --require-hashes -r requirements/runtime.txt && \
    /venv/bin/python3 -c "import pathlib, shutil, sysconfig; client = pathlib.Path(sysconfig.get_path('purelib'), 'kubernetes'); \
        shutil.rmtree(client / 'aio'); shutil.rmtree(client / 'client/api')" && \
    /build/bin/pip --python /venv/bin/python3 uninstall --quiet --yes \
        aiohttp aiohttp-retry aiohappyeyeballs aiosignal attrs frozenlist multidict propcache yarl
COPY pyproject.toml README.md LICENSE ./
COPY webhook webhook
COPY certs certs
# Compiled here, because nothing can be written where it runs; not by modification time, which differs from build to build.
RUN /build/bin/pip wheel --no-deps --no-index --no-build-isolation --wheel-dir /wheel . && \
    /build/bin/pip --python /venv/bin/python3 install --no-compile --no-deps --no-index /wheel/*.whl && \
    PYTHONHASHSEED=0 /venv/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /venv/lib

FROM ${PYTHON} AS without-pip
RUN python3 -m pip uninstall --yes --root-user-action ignore pip && \
    python3 -c "import ensurepip, shutil; shutil.rmtree(*ensurepip.__path__)"

FROM ${BASE}
COPY --from=builder /venv /venv
USER 65532:65532
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
EXPOSE 8443 9090
ENTRYPOINT ["/venv/bin/plane-webhook"]
CMD ["--help"]
