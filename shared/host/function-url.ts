import type { Config } from "./config.ts";

/** Where a function answers inside the cluster. */
export function functionUrl(config: Pick<Config, "FUNCTION_URL" | "FUNCTION_URLS">, name: string): string {
  for (const pair of (config.FUNCTION_URLS ?? "").split(",")) {
    const at = pair.indexOf("=");
    if (at > 0 && pair.slice(0, at).trim() === name) return pair.slice(at + 1).trim();
  }
  return config.FUNCTION_URL.replace("{name}", name);
}
