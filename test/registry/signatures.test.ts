import { spawnSync } from "node:child_process";
import { createPublicKey, generateKeyPairSync, type KeyObject, randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { revokePublisherKey, trustPublisherKey } from "../../shared/registry/publisher-keys.ts";
import { Manifest } from "../../shared/sdk/src/manifest.ts";
import { type ImageSignature, manifestDigest, signImage } from "../../shared/sdk/src/publishing/simple-signing.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { type ImageStore, startImageStore } from "../support/image-store.ts";
import { type ApiAnswer, startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { sayStatus, startWellService, type WellService } from "../support/well-service.ts";

let images: ImageStore;
let platform: TestPlatform;
let tenant: TestTenant;
let service: WellService;
let admin: pg.Client;
const keys = new Map<string, KeyObject>();

/** A key pair whose public half is trusted, under this name. */
async function trusted(name: string, more: { ownerTenantId?: string | null; expiresAt?: Date | null } = {}): Promise<KeyObject> {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const pem = publicKey.export({ type: "spki", format: "pem" }).toString();
  await trustPublisherKey(platform.db, { name, publicKey: pem, ownerTenantId: null, expiresAt: null, ...more });
  keys.set(name, privateKey);
  return privateKey;
}
const keyOf = (name: string): KeyObject => keys.get(name) ?? expect.fail(`no key ${name}`);

beforeAll(async () => {
  images = await startImageStore();
  service = await startWellService();
  platform = await startTestPlatform({ env: { UNSIGNED_PLUGINS: "refuse", IMAGE_REGISTRIES: images.url }, withBridge: false });
  admin = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await admin.connect();
  tenant = await platform.tenant();
  await trusted("house");
});
afterAll(async () => {
  await admin?.end();
  await platform?.stop();
  await service?.stop();
  await images?.stop();
});

let count = 0;
interface Release {
  manifest: Manifest;
  repository: string;
  digest: string;
  image: string;
}
/** A plugin of the test's own, with an image in the store. */
function release(changes: Partial<Manifest> = {}): Release {
  const name = changes.name ?? `signed-${++count}`;
  const repository = `plugins/${name}`;
  const digest = images.image(repository, randomBytes(8).toString("hex"), "latest");
  return { manifest: { ...v.parse(Manifest, echo.manifest), name, ...changes }, repository, digest, image: `${images.host}/${repository}@${digest}` };
}
const signed = ({ manifest, repository, digest }: Release, key: KeyObject) => signImage(key, repository, digest, manifest);
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
const sent = (signatures: readonly ImageSignature[]) => signatures.map(({ payload, signature }) => ({ payload: base64(payload), signature: base64(signature) }));

async function register(body: Record<string, unknown>): Promise<ApiAnswer> {
  const answer = await fetch(`${platform.internalUrl}/internal/registry/register`, {
    method: "POST",
    headers: { authorization: `Bearer ${platform.serviceToken}`, "content-type": "application/json" },
    body: JSON.stringify({ endpoint: service.url, ...body }),
  });
  const text = await answer.text();
  return { status: answer.status, headers: answer.headers, text, body: JSON.parse(text) };
}
const publish = (one: Release, signatures?: readonly ImageSignature[]) =>
  register({ manifest: one.manifest, image: one.image, ...(signatures ? { signatures: sent(signatures) } : {}) });

function expectRejected(answer: ApiAnswer, reason: string): void {
  expectRefusal(answer, "SIGNATURE_REJECTED");
  expect(answer.body.error.reason).toBe(reason);
  expect(answer.status).toBe(400);
}
/** Refused, and nothing of it is in the database. */
async function rejects(reason: string, work: () => Promise<ApiAnswer>): Promise<void> {
  await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => expectRejected(await work(), reason));
}

describe("a signed image", () => {
  it("is taken with the signature that its registry holds, and routable once it is well", async () => {
    const one = release();
    images.sign(one.repository, one.digest, [signed(one, keyOf("house"))]);
    const answer = await publish(one);
    expect([answer.status, answer.body.status, answer.body.health]).toEqual([201, "active", "healthy"]);
    expect((await tenant.api("GET", `/v1/plugins/${one.manifest.name}`)).status).toBe(200);
    const detail = await fetch(`${platform.internalUrl}/internal/registry/${one.manifest.name}`, { headers: { authorization: `Bearer ${platform.serviceToken}` } });
    expect(await detail.json()).toMatchObject({ versions: [{ image: one.image, signed_by: "house", status: "active", tasks_in_flight: 0 }] });
  });

  it("is taken with a signature that is sent along, and then its registry is not asked", async () => {
    const one = release();
    const before = images.asked.length;
    expect((await publish(one, [signed(one, keyOf("house"))])).status).toBe(201);
    expect(images.asked.length).toBe(before);
  });

  it("is taken when one of two signatures holds, whichever stands first", async () => {
    for (const order of [0, 1]) {
      const one = release();
      const two = [signed(one, keyOf("house")), { ...signed(one, keyOf("house")), signature: randomBytes(70) }];
      images.sign(one.repository, one.digest, order === 0 ? two : two.reverse());
      expect((await publish(one)).status).toBe(201);
    }
  });

  it("keeps its signature while its tag is moved to another image", async () => {
    const old = release();
    images.sign(old.repository, old.digest, [signed(old, keyOf("house"))]);
    const moved = images.image(old.repository, "what somebody pushed over it", "latest");
    expect(moved).not.toBe(old.digest);
    await rejects("unsigned", () => publish({ ...old, digest: moved, image: `${images.host}/${old.repository}@${moved}` }));
    expect((await publish(old)).status).toBe(201);
  });

  it("may say again where it is without naming its image, and keeps it", async () => {
    const one = release();
    await publish(one, [signed(one, keyOf("house"))]);
    // Nothing is signed in such a request, and here that is refused; the local platform takes it.
    expectRejected(await register({ manifest: one.manifest }), "unsigned");
    expect((await publish(one, [signed(one, keyOf("house"))])).status).toBe(200);
  });

  it("is signed as cosign signs", async (test) => {
    if (spawnSync("cosign", ["version"]).error) return test.skip("there is no cosign on this machine");
    const folder = await mkdtemp(join(tmpdir(), "aau-cosign-"));
    try {
      const env = { ...process.env, COSIGN_PASSWORD: "" };
      const run = (...args: string[]) => {
        const done = spawnSync("cosign", args, { cwd: folder, env, encoding: "utf8" });
        expect(done.status, done.stderr).toBe(0);
        return done.stdout;
      };
      run("generate-key-pair");
      const publicKey = createPublicKey(run("public-key", "--key", "cosign.key"))
        .export({ type: "spki", format: "pem" })
        .toString();
      await trustPublisherKey(platform.db, { name: "by-cosign", publicKey, ownerTenantId: null, expiresAt: null });
      const one = release();
      await writeFile(join(folder, "x"), "");
      run("sign", "--key", "cosign.key", "--tlog-upload=false", "--allow-insecure-registry", "-y", "-a", `aau.manifest=${manifestDigest(one.manifest)}`, one.image);
      expect((await publish(one)).status).toBe(201);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});

describe("what is refused, and leaves nothing behind", () => {
  it("an image that nobody signed, and a plugin without an image", async () => {
    await rejects("unsigned", () => publish(release()));
    await rejects("unsigned", () => register({ manifest: release().manifest }));
  });

  it("a signature by a key that is not trusted, whatever its payload says", async () => {
    const one = release();
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    await rejects("untrusted_key", () => publish(one, [signed(one, privateKey)]));
    const [good] = [signed(one, keyOf("house"))];
    await rejects("untrusted_key", () => publish(one, [{ ...good, payload: Buffer.concat([good.payload, Buffer.from(" ")]) }]));
    await rejects("untrusted_key", () =>
      publish(
        one,
        [good, good].map(({ payload }) => ({ payload, signature: randomBytes(64) })),
      ),
    );
  });

  it("another image's signature", async () => {
    const [one, other] = [release(), release()];
    await rejects("other_image", () => publish(one, [signed({ ...other, manifest: one.manifest }, keyOf("house"))]));
  });

  it("a manifest that was changed after it was signed", async () => {
    const one = release();
    const signature = signed(one, keyOf("house"));
    await rejects("other_manifest", () => publish({ ...one, manifest: { ...one.manifest, required_scopes: [...one.manifest.required_scopes, "knowledge:read"] } }, [signature]));
    await rejects("other_manifest", () => publish({ ...one, manifest: { ...one.manifest, egress_hosts: ["evil.example"] } }, [signature]));
  });

  it("a key that has expired, and one that was revoked", async () => {
    const one = release();
    const [old, lost] = [await trusted("old", { expiresAt: new Date(Date.now() - 1_000) }), await trusted("lost")];
    expect(await revokePublisherKey(platform.db, "lost")).toBe(true);
    await rejects("key_not_valid", () => publish(one, [signed(one, old)]));
    await rejects("key_not_valid", () => publish(one, [signed(one, lost)]));
  });

  it("another publisher's version of a plugin, also when two come at once for a new name", async () => {
    const [a, b] = [await platform.tenant({ tier: "enterprise" }), await platform.tenant({ tier: "enterprise" })];
    const [keyA, keyB] = [await trusted("a", { ownerTenantId: a.tenantId }), await trusted("b", { ownerTenantId: b.tenantId })];
    const first = release();
    expect((await publish(first, [signed(first, keyA)])).status).toBe(201);
    const next = release({ name: first.manifest.name, version: "1.1.0" });
    await rejects("other_publisher", () => publish(next, [signed(next, keyB)]));
    await rejects("other_publisher", () => publish(next, [signed(next, keyOf("house"))]));
    expect((await publish(next, [signed(next, keyA)])).status).toBe(201);

    const name = `signed-${++count}`;
    const [mine, theirs] = [release({ name, version: "1.0.0" }), release({ name, version: "2.0.0" })];
    const both = await Promise.all([publish(mine, [signed(mine, keyA)]), publish(theirs, [signed(theirs, keyB)])]);
    expect(both.map(({ status }) => status).sort()).toEqual([201, 400]);
    const { rows } = await admin.query("SELECT count(*)::int AS n FROM plugin_versions v JOIN plugins p ON p.id = v.plugin_id WHERE p.name = $1", [name]);
    expect(rows).toEqual([{ n: 1 }]);
  });

  it("a tenant's own plugin where its plan has none, and one for everybody that needs a tenant's own", async () => {
    const [small, large] = [await platform.tenant(), await platform.tenant({ tier: "enterprise" })];
    const [keyOfSmall, keyOfLarge] = [await trusted("small", { ownerTenantId: small.tenantId }), await trusted("large", { ownerTenantId: large.tenantId })];
    const [refused, own] = [release(), release()];
    expect(expectRefusal(await publish(refused, [signed(refused, keyOfSmall)]), "CONFLICT").message).toContain("enterprise plan");
    expect((await publish(own, [signed(own, keyOfLarge)])).status).toBe(201);
    for (const needs of [{ dependencies: [{ name: own.manifest.name, version: "^1.0.0" }] }, { fallback: own.manifest.name }]) {
      const needing = release(needs);
      expect(expectRefusal(await publish(needing, [signed(needing, keyOf("house"))]), "CONFLICT").message).toContain("belongs to one tenant");
      const alike = release(needs);
      expect((await publish(alike, [signed(alike, keyOfLarge)])).status).toBe(201);
    }
  });

  it("another image under a version that is known", async () => {
    const one = release();
    await publish(one, [signed(one, keyOf("house"))]);
    const again = { ...release({ name: one.manifest.name }), manifest: one.manifest };
    expectRefusal(await publish(again, [signed(again, keyOf("house"))]), "CONFLICT");
  });

  it("references that are no image by digest, and registries that nobody allowed", async () => {
    const one = release();
    const signature = [signed(one, keyOf("house"))];
    const repository = `${images.host}/${one.repository}`;
    for (const image of [
      `${repository}:latest`,
      repository,
      `${repository}@sha256:abc`,
      `${repository}@md5:${"0".repeat(32)}`,
      `http://${one.image}`,
      `user:pw@${one.image}`,
      `${repository}/../x@${one.digest}`,
    ])
      expectRefusal(await register({ manifest: one.manifest, image, signatures: sent(signature) }), "INVALID_INPUT", image);
    for (const host of ["169.254.169.254", "localhost:1", "registry.example.com", "127.0.0.1"])
      expectRefusal(await register({ manifest: one.manifest, image: `${host}/${one.repository}@${one.digest}` }), "INVALID_INPUT", host);
  });
});

describe("an image registry that lies, or is not well", () => {
  const signedInStore = (spoil?: Parameters<ImageStore["sign"]>[3]) => {
    const one = release();
    images.sign(one.repository, one.digest, [signed(one, keyOf("house"))], spoil);
    return one;
  };
  const path = (one: Release, rest: string) => `/v2/${one.repository}/${rest}`;

  it("cannot give another image than the digest names", async () => {
    const one = signedInStore();
    images.spoil(path(one, `manifests/${one.digest}`), (response) => response.end("{}"));
    await rejects("image_mismatch", () => publish(one));
    const gone = { ...signedInStore(), digest: `sha256:${"0".repeat(64)}` };
    await rejects("image_mismatch", () => publish({ ...gone, image: `${images.host}/${gone.repository}@${gone.digest}` }));
  });

  it("cannot give another payload than the signature's layer names", async () => {
    const one = release();
    const signature = signed(one, keyOf("house"));
    images.sign(one.repository, one.digest, [signature], (layer) => ({ ...layer, digest: `sha256:${"1".repeat(64)}` }));
    images.spoil(path(one, `blobs/sha256:${"1".repeat(64)}`), (response) => response.end(Buffer.from(signature.payload)));
    await rejects("image_mismatch", () => publish(one));
  });

  it("is not read beyond a payload's size: 50 MB that are announced, and 50 MB that are not", async () => {
    const announced = signedInStore((layer) => ({ ...layer, size: 50 * 1024 * 1024 }));
    await rejects("too_large", () => publish(announced));

    const digest = `sha256:${"2".repeat(64)}`;
    const silent = signedInStore((layer) => ({ ...layer, digest }));
    let written = 0;
    images.spoil(path(silent, `blobs/${digest}`), (response) => {
      const chunk = Buffer.alloc(1024 * 1024);
      const more = () => {
        while (written < 50 * 1024 * 1024 && !response.destroyed) {
          written += chunk.byteLength;
          if (!response.write(chunk)) return void response.once("drain", more);
        }
        response.end();
      };
      more();
    });
    await rejects("too_large", () => publish(silent));
    expect(written).toBeLessThan(20 * 1024 * 1024);
  });

  it("cannot make it read for ever: a hundred signatures, and a list that is none", async () => {
    const many = release();
    images.sign(
      many.repository,
      many.digest,
      Array.from({ length: 100 }, () => signed(many, keyOf("house"))),
    );
    await rejects("too_many", () => publish(many));
    const odd = release();
    images.spoil(path(odd, `manifests/${odd.digest.replace(":", "-")}.sig`), (response) => response.end('{"layers": 7}'));
    await rejects("unreadable", () => publish(odd));
  });

  it("is not followed elsewhere, and its trouble is not taken for a missing signature", async () => {
    const one = signedInStore();
    images.spoil(path(one, `manifests/${one.digest}`), (response) => response.writeHead(302, { location: "http://169.254.169.254/" }).end());
    expectRefusal(await publish(one), "SERVICE_UNAVAILABLE");
    for (const spoil of [500, 401, 403]) {
      const other = signedInStore();
      images.spoil(path(other, `manifests/${other.digest.replace(":", "-")}.sig`), (response) => response.writeHead(spoil).end());
      expectRefusal(await publish(other), "SERVICE_UNAVAILABLE");
    }
  });
});

describe("the platform's own signature", () => {
  /** Registered while its service is not well, so that it waits. */
  async function waiting(): Promise<Release> {
    service.says(sayStatus("unhealthy"));
    const one = release();
    const answer = await publish(one, [signed(one, keyOf("house"))]).finally(() => service.says(sayStatus("healthy")));
    expect(answer.body.status).toBe("pending");
    return one;
  }
  const isRoutable = async (one: Release) => (await tenant.api("GET", `/v1/plugins/${one.manifest.name}`)).status === 200;

  it("lets a version in when it is well at last", async () => {
    const one = await waiting();
    expect(await isRoutable(one)).toBe(false);
    await platform.runCron("plugin-probe");
    expect(await isRoutable(one)).toBe(true);
  });

  it("keeps one out whose manifest, image or record was changed in the database meanwhile, or whose key was withdrawn", async () => {
    for (const [change, ...values] of [
      [`manifest = jsonb_set(manifest, '{egress_hosts}', '["evil.example"]')`],
      ["image = replace(image, substr(image, length(image) - 3), '0000')"],
      [`admission = jsonb_set(admission, '{record,manifest}', '"sha256:0"')`],
      [`admission = jsonb_set(admission, '{record,publisher_key}', 'null')`],
      ["admission = NULL"],
    ]) {
      const one = await waiting();
      await admin.query(`UPDATE plugin_versions SET ${change} WHERE plugin_id = (SELECT id FROM plugins WHERE name = $1)`, [one.manifest.name, ...values]);
      await platform.runCron("plugin-probe");
      expect(await isRoutable(one), change).toBe(false);
    }
    await trusted("fired");
    service.says(sayStatus("unhealthy"));
    const one = release();
    await publish(one, [signed(one, keyOf("fired"))]).finally(() => service.says(sayStatus("healthy")));
    await revokePublisherKey(platform.db, "fired");
    await platform.runCron("plugin-probe");
    expect(await isRoutable(one)).toBe(false);
  });
});

describe("publishers' keys", () => {
  it("are P-256 public keys, and a name stands for one of them", async () => {
    const pem = (key: KeyObject) => key.export({ type: key.type === "private" ? "pkcs8" : "spki", format: "pem" }).toString();
    const trust = (publicKey: string, name = "odd") => trustPublisherKey(platform.db, { name, publicKey, ownerTenantId: null, expiresAt: null });
    await expect(trust(pem(generateKeyPairSync("ed25519").publicKey))).rejects.toThrow("P-256");
    await expect(trust(pem(generateKeyPairSync("ec", { namedCurve: "P-384" }).publicKey))).rejects.toThrow("P-256");
    await expect(trust(pem(generateKeyPairSync("rsa", { modulusLength: 2048 }).publicKey))).rejects.toThrow("P-256");
    await expect(trust(pem(keyOf("house")))).rejects.toThrow("private");
    await expect(trust("not a key")).rejects.toThrow();
    await expect(trust(pem(generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey), "house")).rejects.toThrow("another key");
  });
});
