/** Dependencies that a package.json gains and whose content nobody can foresee. */
import { addedLines, type ChangedFile } from "../change.ts";
import type { Weakness } from "./weakness.ts";

const ENTRY = /^\s*"((?:@[\w.~-]{1,100}\/)?[\w.~-]{1,200})"\s?:\s?"([^"]{0,500})"\s?,?\s*$/;
const FIELDS = new Set([
  "name",
  "version",
  "license",
  "type",
  "main",
  "module",
  "types",
  "homepage",
  "url",
  "description",
  "author",
  "repository",
  "bugs",
  "registry",
  "email",
  "funding",
  "icon",
  "$schema",
]);
const HOOKS = new Set(["preinstall", "install", "postinstall", "prepare"]);

const REMOTE: Weakness = { severity: "medium", confidence: 0.8, cwe: "CWE-829", message: "", suggestion: "Take a published version, or pin the full commit." };
const INSECURE: Weakness = { severity: "high", confidence: 0.9, cwe: "CWE-829", message: "", suggestion: "Take a published version from the registry." };
const ANY: Weakness = {
  severity: "medium",
  confidence: 0.9,
  cwe: "CWE-1104",
  message: "",
  suggestion: "Name a range such as `^1.2.3`; the lock file then says which version runs.",
};
const HOOK: Weakness = {
  severity: "medium",
  confidence: 0.6,
  cwe: "CWE-829",
  message: "",
  suggestion: "Check what the script does on the machine of everyone who installs this package.",
};

function judge(name: string, value: string): { rule: string; weakness: Weakness } | null {
  if (HOOKS.has(name)) return { rule: "install-script", weakness: { ...HOOK, message: `The script \`${name}\` runs on every install.` } };
  if (FIELDS.has(name)) return null;
  const isPinned = /#[0-9a-f]{40}$/.test(value);
  if (/^(?:git\+)?http:\/\/|^git:\/\//.test(value))
    return { rule: "dependency-insecure-url", weakness: { ...INSECURE, message: `\`${name}\` is fetched over a connection that anyone on the way can change.` } };
  if (/^(?:git\+|https:\/\/|github:|gitlab:|bitbucket:)|^[\w-]{1,100}\/[\w.-]{1,100}(?:#|$)/.test(value) && !isPinned)
    return { rule: "dependency-from-url", weakness: { ...REMOTE, message: `\`${name}\` comes from a URL whose content can change under the same name.` } };
  if (value === "*" || value === "latest" || value === "x" || value === "" || value === ">=0")
    return { rule: "dependency-any-version", weakness: { ...ANY, message: `\`${name}\` accepts any version, also the one that an attacker publishes tomorrow.` } };
  return null;
}

export function findDependencyChanges(file: ChangedFile): { rule: string; line: number; weakness: Weakness }[] {
  if (file.path !== "package.json" && !file.path.endsWith("/package.json")) return [];
  return addedLines(file).flatMap((line) => {
    const [, name, value] = ENTRY.exec(line.text) ?? [];
    const found = name !== undefined && value !== undefined ? judge(name, value) : null;
    return found ? [{ ...found, line: line.number }] : [];
  });
}
