# Runs the stages: the training environment, and the orchestrator's lock for the Prefect worker that
# starts them. The two locks agree on every package they share (requirements/lock.sh).
# The image is the environment alone; the project is the checkout, mounted at /app.
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory '*'

COPY requirements/worker.txt requirements/orchestrator.txt requirements/data.txt /requirements/
# torch first and with its own dependencies, as in the Makefile: a CUDA build brings its libraries.
RUN python -m pip install --no-cache-dir -c /requirements/worker.txt torch
RUN python -m pip install --no-cache-dir --no-deps \
    -r /requirements/worker.txt -r /requirements/orchestrator.txt -r /requirements/data.txt

ENV PYTHONPATH=/app PYTHONUNBUFFERED=1 OMP_WAIT_POLICY=PASSIVE
WORKDIR /app
