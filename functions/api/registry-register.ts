import * as v from "valibot";
import { http } from "../../shared/host/declare.ts";
import { publicId } from "../../shared/ids.ts";
import { announceGeneration } from "../../shared/registry/catalogue.ts";
import { registerPlugin } from "../../shared/registry/register-plugin.ts";
import { Manifest } from "../../shared/sdk/src/manifest.ts";

const Endpoint = v.pipe(v.string(), v.maxLength(300), v.url(), v.regex(/^https?:\/\/[^/?#@]+$/, "must be an http(s) origin without path and credentials"));

/** Publishes a plugin version. Idempotent: the same manifest again is how a plugin says where it is. */
export default http({
  name: "registry-register",
  summary: "Register a plugin version with its manifest.",
  route: "POST /internal/registry/register",
  scope: "service",
  needs: ["platformDb", "redis", "embedder"],
  body: v.strictObject({ manifest: Manifest, endpoint: Endpoint }),
  maxBodyBytes: 256 * 1024,
  replies: { 200: v.strictObject({ plugin_id: v.string() }), 201: v.strictObject({ plugin_id: v.string() }) },
  documented: { refusals: ["CONFLICT", "CIRCULAR_DEPENDENCY"] },
  scale: { min: 0, max: 2, concurrency: 10 },

  async handle({ body, request, platformDb, redis, embedder }) {
    const registered = await registerPlugin(platformDb, embedder, body.manifest, body.endpoint, request.signal);
    await announceGeneration(redis, registered.generation);
    return { status: registered.isNew ? 201 : 200, body: { plugin_id: publicId("plugin", registered.pluginId) } };
  },
});
