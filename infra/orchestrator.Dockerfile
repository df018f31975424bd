# Schedules and watches: Prefect's server, MLflow's server, deployments. No torch in it.
# The image is the environment alone; the project is the checkout, mounted at /app.
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory '*'

COPY requirements/orchestrator.txt /requirements/
RUN python -m pip install --no-cache-dir --no-deps -r /requirements/orchestrator.txt

ENV PYTHONPATH=/app PYTHONUNBUFFERED=1
WORKDIR /app
