/** The folder of the local platform: data, logs and keys, for this user's eyes only. */
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import * as v from "valibot";
import { randomHex } from "../../shared/ids.ts";

export interface Home {
  folder: string;
  path(...parts: string[]): string;
  logFile(name: string): string;
}

export function openHome(folder: string): Home {
  const root = resolve(folder);
  mkdirSync(join(root, "logs"), { recursive: true, mode: 0o700 });
  return { folder: root, path: (...parts) => join(root, ...parts), logFile: (name) => join(root, "logs", `${name}.log`) };
}

/** Readable by nobody else, also when the file was there before. */
export function writePrivate(file: string, value: unknown): void {
  writePrivateText(file, `${JSON.stringify(value, null, 2)}\n`);
}

function writePrivateText(file: string, text: string): void {
  writeFileSync(file, text, { mode: 0o600 });
  chmodSync(file, 0o600);
}

/** For a shell: `. .aau/env` gives the commands for operators and developers what they need of the platform that runs. */
export function writeShellEnv(home: Home, env: Readonly<Record<string, string | undefined>>): string {
  const quoted = (value: string) => `'${value.replaceAll("'", `'\\''`)}'`;
  const file = home.path("env");
  writePrivateText(
    file,
    Object.entries(env)
      .map(([name, value]) => (value === undefined ? "" : `export ${name}=${quoted(value)}\n`))
      .join(""),
  );
  return file;
}

const PlatformSecrets = v.object({ CAPABILITY_KEY: v.string(), SERVICE_TOKEN: v.string(), SECRETS_KEY: v.string(), ADMISSION_KEY: v.string() });

/** Keys of this installation, made on the first start; one that a later release needs is added to them. */
export function platformSecrets(home: Home): v.InferOutput<typeof PlatformSecrets> {
  const file = home.path("platform.json");
  const known = existsSync(file) ? v.parse(v.partial(PlatformSecrets), JSON.parse(readFileSync(file, "utf8"))) : {};
  const secrets = { CAPABILITY_KEY: randomHex(), SERVICE_TOKEN: randomHex(), SECRETS_KEY: randomHex(), ADMISSION_KEY: randomHex(), ...known };
  writePrivate(file, secrets);
  return secrets;
}

const Keys = v.record(v.string(), v.object({ tenant_id: v.string(), user_id: v.string(), plan_tier: v.string(), admin_key: v.string() }));
export type Keys = v.InferOutput<typeof Keys>;

export function readKeys(home: Home): Keys {
  const file = home.path("keys.json");
  if (!existsSync(file)) return {};
  const parsed = v.safeParse(Keys, JSON.parse(readFileSync(file, "utf8")));
  return parsed.success ? parsed.output : {};
}
