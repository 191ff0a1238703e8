# syntax=docker/dockerfile:1
# Maps on CPUs, with OpenVINO and the built-in models, without torch: no training.
#
#   docker build -t geocfl .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/data" geocfl map scene.tif --out maps

ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS build
# Extras of geocfl, and packages for the object stores that it reads and writes.
ARG EXTRAS="cloud dask"
ARG STORES="s3fs"
WORKDIR /src
COPY pyproject.toml docker/requirements.py ./
# hadolint ignore=SC2086
RUN python -m venv --without-pip /opt/geocfl \
    && python requirements.py ${EXTRAS} < pyproject.toml > requirements.txt \
    && python -m pip --python /opt/geocfl/bin/python install --no-cache-dir -r requirements.txt ${STORES}
COPY README.md LICENSE ./
COPY geocfl geocfl
RUN python -m pip --python /opt/geocfl/bin/python install --no-cache-dir --no-deps .

FROM python:${PYTHON}-slim-bookworm
# rasterio's wheels need libexpat, which the slim image lacks.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libexpat1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home geocfl \
    && install -d -o geocfl /data
COPY --from=build /opt/geocfl /opt/geocfl
# Caches go where every user may write, whatever --user says.
ENV PATH=/opt/geocfl/bin:$PATH \
    MPLCONFIGDIR=/tmp/matplotlib \
    XDG_CACHE_HOME=/tmp/cache
USER 10001
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=1m CMD ["geocfl", "info", "eurosat-rgb-dense"]
ENTRYPOINT ["geocfl"]
CMD ["--help"]
