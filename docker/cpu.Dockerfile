# mm1 on CPUs, from this tree:
#   docker build -f docker/cpu.Dockerfile -t mm1:cpu .
#   docker run --rm -it -v "$PWD:/work" mm1:cpu mm1 demo
# Corpora and runs go to /work, which the command mounts from outside.
FROM python:3.12-slim-bookworm AS build
# git: the wheel holds the commit that it was built from.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends -y git && rm -rf /var/lib/apt/lists/*
WORKDIR /tree
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm
# g++: what torch.compile compiles with on CPUs.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends -y g++ && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
COPY constraints-runtime.txt /wheels/
# A bare torch brings gigabytes of CUDA libraries. PyTorch's own index has a build for CPUs.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch>=2.9,<3" \
    && pip install --no-cache-dir -c /wheels/constraints-runtime.txt /wheels/mm1-*.whl \
    && rm -r /wheels
RUN useradd --uid 1000 --create-home user
USER 1000
WORKDIR /work
CMD ["mm1", "doctor"]
