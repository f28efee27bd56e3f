# The prediction page alone: the analysis environment, the model of the clone, a user that is not root.
#   docker build -t xray-page . && docker run --rm -p 127.0.0.1:8866:8866 xray-page
# Written by the documentation of Docker, and not built where this project is made. Behind a proxy: docker run ... xray-page --base-url https://example.org/xray/
FROM python:3.12-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /page
COPY requirements/analysis.lock requirements/
RUN pip install --no-cache-dir --require-hashes -r requirements/analysis.lock && useradd --create-home reader
COPY helpers helpers
COPY notebooks notebooks
COPY data/pretrained data/pretrained
USER reader
EXPOSE 8866
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
    "import urllib.request as r; r.urlopen('http://127.0.0.1:8866/voila/static/voila.js', timeout=5)"]
ENTRYPOINT ["python", "-m", "helpers.serve", "--ip", "0.0.0.0"]
