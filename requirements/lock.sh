#!/bin/sh
# Writes the lock files. CUDA libraries are left out: torch brings those of its own build (Makefile).
set -eu
cd "$(dirname "$0")"
uv="../$BIN/uv"
skip=""
for name in nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 \
    nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 \
    nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx cuda-bindings cuda-pathfinder \
    cuda-toolkit triton; do
    skip="$skip --no-emit-package $name"
done
options="--universal --python-version 3.11 --quiet --no-header --no-annotate $skip"
$uv pip compile dev.in $options -o dev.txt
$uv pip compile worker.in $options -c dev.txt -o worker.txt
$uv pip compile orchestrator.in $options -c dev.txt -o orchestrator.txt
$uv pip compile vllm.in --override vllm.override --python-platform linux --python-version 3.11 \
    --quiet --no-header --no-annotate $skip -o vllm.txt
