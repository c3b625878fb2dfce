# The suite for GPU nodes: docker build -t yolor-ablations . ; docker run --gpus all -v RESULTS:/results yolor-ablations \
#   ablate launch 1 --profile smoke --results /results
# The wheels of torch bring CUDA along; the node needs its driver only. For Apptainer: apptainer.def.
ARG BASE=python:3.12-slim
FROM ${BASE}

# A compiler for kernels that are compiled at run time; git, because a run records its commit.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev git \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /opt/yolor-ablations

WORKDIR /opt/yolor-ablations
COPY requirements.lock ./
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --prefer-binary --require-hashes --requirement requirements.lock
ENV PATH=/opt/venv/bin:$PATH

COPY . .
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .
CMD ["ablate", "--help"]
