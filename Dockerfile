# syntax=docker/dockerfile:1

# One image holds every function, the bridge and the migrations; a service picks its own by its argument:
#   docker run … aau /app/functions/task-submit/index.mjs
# Release builds pin both base images by digest (FROM node:24-trixie-slim@sha256:…), and services refer to this image by digest.

FROM node:24-trixie-slim AS build
WORKDIR /src
COPY package.json package-lock.json ./
COPY shared/sdk/package.json shared/sdk/package.json
# No package needs to run code of its own while it is installed.
RUN --mount=type=cache,target=/root/.npm npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json ./
COPY migrations migrations
COPY shared shared
COPY functions functions
COPY scripts scripts
# The code caches are made by the very Node that runs them below: V8 refuses those of any other build.
RUN npm run build -- --out /app \
    && find /app -name '*.map' -delete \
    && mkdir /data

# glibc, libstdc++, certificates; no shell, no package manager.
FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /usr/local/bin/node /usr/local/bin/node
COPY --from=build /app /app
# For the local stack alone: functions write nothing, their root is read-only.
COPY --from=build --chown=65532:65532 /data /data
ENV NODE_ENV=production PORT=8080
WORKDIR /app
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/node"]
CMD ["/app/functions/not-found/index.mjs"]
