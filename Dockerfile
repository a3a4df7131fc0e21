# Customer Orders: one image for the server, the worker and the migrations. `make image` builds it, `make image-check`
# tries it, and docs/image.md says how to run it.

# Any Debian with Python 3.11 to 3.14 and its venv. What a tag stands for changes: have CI name the digest that it was
# tried with, as make image PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie@sha256:...
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS build
# bytecode is made at the end, all of it at once
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_COMPILE=0 PIP_QUIET=1 PYTHONDONTWRITEBYTECODE=1
# pip, and apart from it the environment that goes into the image, with the interpreter that both stages share
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/customer-orders
ENV PIP_PYTHON=/opt/customer-orders/bin/python
WORKDIR /build
COPY requirements.txt ./
# --secret id=pip.conf,src=FILE for those who reach PyPI by a mirror of their own
RUN --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    /pip/bin/pip install --require-hashes --no-deps --only-binary :all: -r requirements.txt
COPY . ./
# without network: setuptools is there, and what one of them needs and requirements.txt lacks is an error
RUN /pip/bin/pip wheel --no-index --no-deps --no-build-isolation --wheel-dir /wheels . ./plugins/* \
    && /pip/bin/pip install --no-index /wheels/*.whl \
    && /pip/bin/pip check
# never looked at again whether it is as new as its source: nothing changes in an image, and copying may change times
RUN /opt/customer-orders/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/customer-orders/lib

FROM ${PYTHON_IMAGE}
# the official images come without the standard library's bytecode, and nobody could write it at a start
RUN python3 -m compileall -q -x '/(test|tests|idlelib|lib2to3|turtledemo|site-packages)/' \
        "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
    && groupadd --gid 10001 customer-orders \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin customer-orders
COPY --from=build /opt/customer-orders /opt/customer-orders
# mount another over it, or set what it names by variables
COPY production.ini /etc/customer-orders/

ARG PYTHON_IMAGE
ARG VERSION=
ARG REVISION=
ARG SOURCE=
ENV PATH=/opt/customer-orders/bin:$PATH \
    APP_COMMIT=${REVISION} \
    CUSTOMER_ORDERS_CONFIG=/etc/customer-orders/production.ini \
    METRICS_LISTEN=0.0.0.0:9464 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONWARNINGS="ignore:pkg_resources is deprecated"
USER 10001:10001
EXPOSE 6543 9464
STOPSIGNAL SIGTERM
ENTRYPOINT ["customer-orders"]
CMD ["serve"]
# By the standard library alone, and by no proxy of the environment: it runs again and again. A worker has no HTTP.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s \
    CMD ["python", "-IS", "-c", "import http.client, os; port = (os.environ.get('SERVER_LISTEN') or '6543').rpartition(':')[2]; asked = http.client.HTTPConnection('127.0.0.1', int(port), timeout=4); asked.request('GET', '/livez'); raise SystemExit(asked.getresponse().status != 200)"]

LABEL org.opencontainers.image.title="Customer Orders" \
      org.opencontainers.image.description="The order book of a merchant, as a service." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
