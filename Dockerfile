# The proxy in a container: Deno, the sources and their packages; no shell, no root.
# For several platforms: docker buildx build --platform linux/amd64,linux/arm64 .
ARG DENO_VERSION=2.9.6

# No package has native parts: packages fetched on the build machine work on every platform.
FROM --platform=${BUILDPLATFORM:-linux/amd64} denoland/deno:${DENO_VERSION} AS build
WORKDIR /cache
WORKDIR /app
ENV DENO_DIR=/deno-dir
COPY deno.json deno.lock main.ts mod.ts ./
COPY std ./std
COPY lib ./lib
RUN ["deno", "install", "--frozen", "--entrypoint", "main.ts"]

FROM denoland/deno:distroless-${DENO_VERSION}
COPY --from=build --chown=65532:65532 /cache /cache
# Writable: Deno keeps compiled code there, where the file system is not read-only.
COPY --from=build --chown=65532:65532 /deno-dir /deno-dir
COPY --from=build /app /app
WORKDIR /app
USER 65532:65532
ENV DENO_DIR=/deno-dir DENO_NO_UPDATE_CHECK=1 CACHE_DIR=/cache DENO_USR2_MEMORY_TRIM=1
VOLUME /cache
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=10s --start-period=10s --retries=3 \
  CMD ["deno", "run", "--cached-only", "--frozen", "--no-prompt", "--allow-net", "--allow-read=/", "--allow-env", "main.ts", "health"]
# The permissions of `deno task start`. The process gives up file access that its settings do not need.
ENTRYPOINT ["deno", "run", "--cached-only", "--frozen", "--no-code-cache", "--v8-flags=--expose-gc", "--no-prompt", "--allow-net", "--allow-read=/", "--allow-write=/", "--allow-env", "--allow-sys=networkInterfaces", "main.ts"]
CMD ["serve"]
