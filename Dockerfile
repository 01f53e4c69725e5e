# invsr as a BIDS app, on CPUs: docker build -t invsr . && docker run --rm -v DATA:/data:ro -v OUT:/out invsr /data /out participant
#
# Where registries are mirrored: --build-arg BASE=MIRROR/python:3.12-slim, PIP_INDEX=..., and TORCH_INDEX=..., an index
# whose torch has no CUDA, which would take gigabytes.
ARG BASE=python:3.12-slim
FROM ${BASE} AS build
ARG PIP_INDEX=https://pypi.org/simple
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY . /source
RUN python -m venv /app \
 && /app/bin/pip install --no-cache-dir --index-url ${TORCH_INDEX} torch \
 && /app/bin/pip install --no-cache-dir --index-url ${PIP_INDEX} "/source[cohort,fast]"

FROM ${BASE}
COPY --from=build /app /app
# Measurements of the networks' engines are kept here; any user may run it.
ENV XDG_CACHE_HOME=/tmp/cache PYTHONDONTWRITEBYTECODE=1
ENTRYPOINT ["/app/bin/invsr", "bids"]
