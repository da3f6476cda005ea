/** The parts of the README that follow from the declarations: the function table and the settings. */
import * as v from "valibot";
import { VARIABLES } from "../../shared/host/config.ts";
import type { LoadedFunction } from "../functions.ts";

/** Puts text between `<!-- name:begin -->` and `<!-- name:end -->`. */
function between(current: string, name: string, text: string): string {
  const [begin, end] = [`<!-- ${name}:begin -->`, `<!-- ${name}:end -->`];
  const from = current.indexOf(begin);
  const to = current.indexOf(end);
  if (from < 0 || to < from) throw new Error(`README.md has no ${begin} … ${end}`);
  return `${current.slice(0, from + begin.length)}\n${text}\n${current.slice(to)}`;
}

const cell = (text: string) => text.replaceAll("|", "\\|");
const row = (...cells: string[]) => `| ${cells.map(cell).join(" | ")} |`;

function trigger({ fn }: LoadedFunction): string {
  switch (fn.kind) {
    case "http":
      return `\`${fn.route}\``;
    case "event":
      return `event \`${fn.event}\``;
    case "cron":
      return `schedule \`${fn.schedule}\``;
    case "gateway":
      return `\`${[...new Set(Object.keys(fn.routes).map((route) => route.split(" ")[1]?.split("/").slice(0, 3).join("/")))].join(", ")}/…\``;
    case "plugin":
      return "`POST /execute`";
  }
}

function guard({ fn }: LoadedFunction): string {
  switch (fn.kind) {
    case "http":
      return fn.scope === "service" ? "service token" : fn.scope === "public" ? "public" : fn.scope === "any" ? "any key" : `\`${fn.scope}\``;
    case "gateway":
    case "plugin":
      return "capability token";
    case "event":
      return "service token";
    case "cron":
      return "inside the cluster";
  }
}

function functionTable(functions: readonly LoadedFunction[]): string {
  const rows = functions.map((found) => {
    const about = found.fn.kind === "plugin" ? found.fn.manifest.description : found.fn.summary;
    return row(`\`${found.name}\``, trigger(found), guard(found), about);
  });
  return [row("function", "trigger", "guard", "what it does"), row("---", "---", "---", "---"), ...rows].join("\n");
}

function settingsTable(): string {
  const rows = Object.entries(VARIABLES).map(([name, variable]) => {
    const parsed = v.safeParse(variable.schema, undefined);
    const fallback = parsed.success && parsed.output !== undefined ? `\`${parsed.output}\`` : "";
    return row(`\`${name}\`${"secret" in variable ? " 🔒" : ""}`, fallback, variable.about);
  });
  return [row("setting", "default", "what it is"), row("---", "---", "---"), ...rows].join("\n");
}

export function readme(functions: readonly LoadedFunction[], current: string): string {
  return between(between(current, "functions", functionTable(functions)), "settings", settingsTable());
}
