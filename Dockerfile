# A server for one model (examples/serve.py), its kernels compiled beforehand: docs/container.md says how to run it.
#   docker build -t npmobilenet . && docker run --rm --read-only --cap-drop ALL -p 8000:8000 npmobilenet
# tools/container_steps.py runs these steps without a builder.
FROM python:3.13-slim

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    NPMOBILENET_CACHE=/opt/npmobilenet/kernels
WORKDIR /opt/npmobilenet

# Numba's threads run faster on GNU OpenMP, which the slim image lacks.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*

COPY pyproject.toml README.md LICENSE source/
COPY npmobilenet source/npmobilenet
COPY weights source/weights
RUN pip install "./source[cli,serve]" && rm -rf source

COPY container/start examples/serve.py ./
# Root's, and for all to read: whichever user runs the container may use them, and none can write them.
RUN ./start warm && chmod -R a+rX,go-w kernels

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["/opt/npmobilenet/start"]
CMD ["python", "serve.py", "flowers", "--host", "0.0.0.0"]
