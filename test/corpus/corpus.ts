/** Reads the labelled commands and splits them, always the same way, into a half to fit on and a half to judge by. */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import * as v from "valibot";

export interface LabelledCommand {
  /** null: no plugin of the catalogue fits. */
  readonly plugin: string | null;
  readonly text: string;
}

export interface CataloguePlugin {
  readonly plugin: string;
  readonly capabilities: readonly string[];
}

const Catalogue = v.array(v.strictObject({ plugin: v.string(), capabilities: v.pipe(v.array(v.string()), v.minLength(1)) }));

export async function readCatalogue(file = "catalogue.json"): Promise<CataloguePlugin[]> {
  return v.parse(Catalogue, JSON.parse(await readFile(new URL(file, import.meta.url), "utf8")));
}

export async function readCommands(file = "commands.tsv"): Promise<LabelledCommand[]> {
  const lines = (await readFile(new URL(file, import.meta.url), "utf8")).trimEnd().split("\n");
  return lines.map((line, i) => {
    const [label, text, ...rest] = line.split("\t");
    if (!label || !text || rest.length > 0) throw new Error(`${file}:${i + 1}: expected a plugin (or -), a tab and a command`);
    return { plugin: label === "-" ? null : label, text };
  });
}

/** Stratified: within each label, every second command in the order of their hashes. */
export function splitInHalves(commands: readonly LabelledCommand[]): { fit: LabelledCommand[]; test: LabelledCommand[] } {
  const halves = { fit: [] as LabelledCommand[], test: [] as LabelledCommand[] };
  for (const label of new Set(commands.map((command) => command.plugin))) {
    const group = commands
      .filter((command) => command.plugin === label)
      .map((command) => ({ command, key: createHash("sha256").update(command.text).digest("hex") }));
    group.sort((a, b) => (a.key < b.key ? -1 : 1));
    group.forEach(({ command }, i) => {
      (i % 2 === 0 ? halves.fit : halves.test).push(command);
    });
  }
  return halves;
}
