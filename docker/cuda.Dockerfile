# mm1 on NVIDIA's GPUs, from this tree (the host needs the driver and the NVIDIA Container Toolkit):
#   docker build -f docker/cuda.Dockerfile -t mm1:cuda .
#   docker run --rm -it --gpus all --shm-size 8g -v "$PWD:/work" mm1:cuda mm1 doctor
# Corpora and runs go to /work, which the command mounts from outside. Processes that prepare batches (data.workers) pass
# them through shared memory, of which docker gives 64 MB unless --shm-size says more.
FROM python:3.12-slim-bookworm AS build
# git: the wheel holds the commit that it was built from.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends -y git && rm -rf /var/lib/apt/lists/*
WORKDIR /tree
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# torch's wheels bring CUDA with them; the image needs none of its own.
FROM python:3.12-slim-bookworm
# gcc: triton compiles its launchers with it.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --no-install-recommends -y gcc libc6-dev && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
COPY constraints-runtime.txt /wheels/
RUN pip install --no-cache-dir -c /wheels/constraints-runtime.txt "$(echo /wheels/mm1-*.whl)[track,lora,serve]" \
    && rm -r /wheels
RUN useradd --uid 1000 --create-home user
USER 1000
WORKDIR /work
CMD ["mm1", "doctor"]
