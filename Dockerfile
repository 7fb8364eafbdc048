# syntax=docker/dockerfile:1

# Two images from one build:
#   docker build --target maitred       --build-arg MAITRED_COMMIT="$(git rev-parse --short=12 HEAD)" -t maitred .
#   docker build --target chefcloud-api -t chefcloud-api .

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml build.rs ./
COPY vendor vendor
COPY config config
COPY src src
COPY upstream upstream
# The checkout's .git is not part of the build; `maitred` reports this instead.
ARG MAITRED_COMMIT=unknown
ENV MAITRED_COMMIT=${MAITRED_COMMIT}
# Target and registry are caches, so the programs are copied out within the same step. The edge is
# built without the embedded API: in production the API is a service of its own.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --profile dist --locked --package maitred --no-default-features --bin maitred \
    && cargo build --profile dist --locked --package chefcloud-api --bin chefcloud-api \
    && mkdir /out \
    && cp target/dist/maitred target/dist/chefcloud-api /out/

FROM debian:bookworm-slim AS runtime
# Not pinned: a rebuild should bring the newest certificates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 65532 --user-group --no-create-home --shell /usr/sbin/nologin service
USER 65532:65532
STOPSIGNAL SIGTERM

FROM runtime AS chefcloud-api
COPY --from=build /out/chefcloud-api /usr/local/bin/chefcloud-api
ENV CHEFCLOUD_ENV=production \
    CHEFCLOUD_LISTEN=0.0.0.0:8081
EXPOSE 8081
# The image has no HTTP client; bash can speak enough of it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8081 && printf 'GET /ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["chefcloud-api"]
CMD ["serve"]

# Last, so that it is what a plain `docker build .` makes.
FROM runtime AS maitred
COPY --from=build /out/maitred /usr/local/bin/maitred
COPY config/maitred.toml /etc/maitred/config/maitred.toml
# Where the inbox is (inbox.path). A new named volume takes its owner and mode from here. It is not
# declared a VOLUME: a read-only edge without one would then start on storage that goes with the
# container, and lose webhooks it has answered with 200. As it is, it refuses to start.
USER root
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/maitred
USER 65532:65532
WORKDIR /etc/maitred
# https, http (redirect and health), admin. The admin port belongs to the operator's network only.
EXPOSE 8443 8080 9090
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["maitred", "healthcheck"]
ENTRYPOINT ["maitred"]
CMD ["serve", "--config", "/etc/maitred/config/maitred.toml"]
