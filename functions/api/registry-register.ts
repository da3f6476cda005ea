import * as v from "valibot";
import { http } from "../../shared/host/declare.ts";
import { publicId } from "../../shared/ids.ts";
import { admitImage } from "../../shared/registry/admit-image.ts";
import { announceGeneration } from "../../shared/registry/catalogue.ts";
import { probeVersion } from "../../shared/registry/probe-plugin.ts";
import { checkContract, circularDependency } from "../../shared/registry/refuse-registration.ts";
import { findPluginOwner, registerPlugin } from "../../shared/registry/register-plugin.ts";
import { Manifest } from "../../shared/sdk/src/manifest.ts";

const Endpoint = v.pipe(v.string(), v.maxLength(300), v.url(), v.regex(/^https?:\/\/[^/?#@]+$/, "must be an http(s) origin without path and credentials"));
const bytes = (maxChars: number) => v.pipe(v.string(), v.maxLength(maxChars), v.base64("must be base64"));
const Signature = v.strictObject({
  payload: v.pipe(bytes(88_000), v.description("The signed simple-signing JSON, in base64.")),
  signature: v.pipe(bytes(200), v.description("ECDSA over SHA-256 of the payload, in DER and base64, as `cosign sign` makes it.")),
});
const Reply = v.strictObject({
  plugin_id: v.string(),
  status: v.picklist(["pending", "active", "deprecated"]),
  health: v.picklist(["healthy", "degraded", "unhealthy", "asleep", "unknown"]),
});

/**
 * Publishes a plugin version: its image's signature is verified and countersigned, and it is routable once the platform has seen it healthy, here or at a
 * later probe. Idempotent: the same manifest again is how a plugin says where it is.
 */
export default http({
  name: "registry-register",
  summary: "Register a plugin version: its manifest, where it listens, and its signed image.",
  route: "POST /internal/registry/register",
  scope: "service",
  needs: ["platformDb", "redis", "embedder", "plugins", "pluginTrust"],
  timeoutSec: 90,
  body: v.strictObject({
    manifest: Manifest,
    endpoint: Endpoint,
    image: v.optional(v.pipe(v.string(), v.maxLength(500), v.description("`host/repository@sha256:…`; never a tag, which may be moved after it was signed."))),
    signatures: v.optional(v.pipe(v.array(Signature), v.minLength(1), v.maxLength(16), v.description("Without them the image's registry is asked."))),
  }),
  maxBodyBytes: 1024 * 1024,
  replies: { 200: Reply, 201: Reply },
  documented: { refusals: ["SIGNATURE_REJECTED", "CONFLICT", "CIRCULAR_DEPENDENCY", "SERVICE_UNAVAILABLE"] },
  scale: { min: 0, max: 2, concurrency: 10 },

  async handle({ body, request, platformDb, redis, embedder, plugins, pluginTrust }) {
    const { manifest, endpoint } = body;
    checkContract(manifest);
    const signatures = body.signatures?.map((one) => ({ payload: Buffer.from(one.payload, "base64"), signature: Buffer.from(one.signature, "base64") })) ?? null;
    const owner = await findPluginOwner(platformDb, manifest.name);
    const admission = await admitImage(pluginTrust, platformDb, { manifest, image: body.image ?? null, signatures }, owner, request.signal);
    const registered = await registerPlugin(platformDb, embedder, { manifest, endpoint, admission }, request.signal);
    await announceGeneration(redis, registered.generation);
    const reply = { plugin_id: publicId("plugin", registered.pluginId), status: registered.status, health: "unknown" };
    if (registered.status === "pending") {
      const probed = await probeVersion(platformDb, plugins, pluginTrust, { name: manifest.name, version: manifest.version, endpoint }, request.signal);
      if (probed.generation !== null) {
        await announceGeneration(redis, probed.generation);
        if (probed.circle) throw circularDependency(probed.circle);
        reply.status = "active";
      }
      reply.health = probed.health === "asleep" ? probed.health : probed.health.status;
    }
    return { status: registered.isNew ? 201 : 200, body: reply };
  },
});
