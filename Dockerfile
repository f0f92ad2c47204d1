# The operator and the collector in one image: CPU only, no torch (statistics, graph propagation and a runbook table).
# Built where Docker is: docker build -t kintsugi:0.1.0 .
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY ml ml
RUN python -m venv /opt/kintsugi && /opt/kintsugi/bin/pip install --no-cache-dir .

FROM python:3.11-slim
COPY --from=build /opt/kintsugi /opt/kintsugi
ENV PATH=/opt/kintsugi/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["kintsugi"]
CMD ["run"]
