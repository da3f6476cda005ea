import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { envelopeSchemas, publishEnvelopeSchemas } from "../../scripts/envelope-schemas.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

let platform: TestPlatform;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo] });
});
afterAll(() => platform?.stop());

const stored = () =>
  platform.db.call<{ version: string; message: string; is_current: boolean; schema: unknown; updated_at: Date }>(
    "SELECT version, message, is_current, schema, updated_at FROM envelope_schemas ORDER BY version DESC, message",
    [],
  );
const register = (envelope_version: unknown, name = "old-talker") =>
  fetch(`${platform.internalUrl}/internal/registry/register`, {
    method: "POST",
    headers: { authorization: `Bearer ${platform.serviceToken}`, "content-type": "application/json" },
    body: JSON.stringify({ manifest: { ...echo.manifest, name, envelope_version }, endpoint: "http://127.0.0.1:9" }),
  });

describe("the table of envelopes", () => {
  it("holds what the SDK's schemas say, and which version is the current one", async () => {
    const rows = await stored();
    expect(rows.map(({ version, message, is_current }) => `${version} ${message} ${is_current}`)).toEqual([
      "2.0 input true",
      "2.0 output true",
      "1.0 input false",
      "1.0 output false",
    ]);
    expect(rows.map(({ version, message, schema }) => ({ version, message, schema }))).toEqual(
      JSON.parse(JSON.stringify(envelopeSchemas().map(({ version, message, schema }) => ({ version, message, schema })))),
    );
  });

  it("changes only where the schemas have changed, and loses what is no longer spoken", async () => {
    const url = platform.env.DATABASE_URL ?? "";
    const before = await stored();
    await publishEnvelopeSchemas(url);
    expect(await stored()).toEqual(before);
    const { default: pg } = await import("pg");
    const admin = new pg.Client({ connectionString: url });
    await admin.connect();
    await admin.query("UPDATE envelope_schemas SET schema = '{}' WHERE version = '1.0' AND message = 'input'");
    await admin.query("INSERT INTO envelope_schemas (version, message, is_current, schema) VALUES ('0.9', 'input', false, '{}')");
    await admin.end();
    await publishEnvelopeSchemas(url);
    expect((await stored()).map(({ schema }) => schema)).toEqual(before.map(({ schema }) => schema));
  });
});

describe("registration", () => {
  it.each(["2.0", "1.0"])("takes a plugin that speaks %s, and keeps the version", async (version) => {
    const name = `speaks-${version.replace(".", "-")}`;
    expect((await register(version, name)).status).toBe(201);
    const [row] = await platform.db.call<{ envelope_version: string }>(
      "SELECT pv.envelope_version FROM plugin_versions pv JOIN plugins p ON p.id = pv.plugin_id WHERE p.name = $1",
      [name],
    );
    expect(row?.envelope_version).toBe(version);
  });

  it.each(["3.0", "0.9", "2", "", null, 2])("refuses %j, and says what is spoken", async (version) => {
    const answer = await register(version);
    const body = await answer.json();
    expect(answer.status).toBe(422);
    expect(JSON.stringify(body)).toContain("envelopes 2.0 and 1.0");
    expectRefusal({ status: answer.status, headers: answer.headers, body, text: JSON.stringify(body) }, "INVALID_INPUT");
  });
});
