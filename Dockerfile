ARG PYTHON_IMAGE=python:3.13.5-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /build
RUN python -m venv /opt/meter
COPY requirements.lock ./
RUN /opt/meter/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY meter meter
RUN /opt/meter/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 meter \
    && useradd --uid 10001 --gid meter --no-create-home --shell /usr/sbin/nologin meter \
    && install --directory --owner meter --group meter --mode 0700 /var/lib/meter
COPY --from=build /opt/meter /opt/meter
ENV PATH=/opt/meter/bin:$PATH \
    METER_DATA_DIR=/var/lib/meter \
    METER_HOST=0.0.0.0 \
    METER_ADMIN_HOST=0.0.0.0
USER 10001:10001
WORKDIR /var/lib/meter
VOLUME /var/lib/meter
EXPOSE 8080 8081
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/ready', timeout=2)"]
ENTRYPOINT ["meter"]
CMD ["serve"]
