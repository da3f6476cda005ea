/** Compares what the generators make with what is on disk. */
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { LoadedFunction } from "../functions.ts";

type Functions = readonly LoadedFunction[];

/** Makes one file. `current` is its present text, or empty: a generator that owns a part of a file puts its part in there. */
export interface FileGenerator {
  path: string;
  make(functions: Functions, current: string): string | Promise<string>;
}

/** Makes all files of a folder, by their names. */
export interface FolderGenerator {
  folder: string;
  make(functions: Functions): Record<string, string> | Promise<Record<string, string>>;
}

export type Generator = FileGenerator | FolderGenerator;

export type Change = { path: string; kind: "add" | "change"; text: string } | { path: string; kind: "remove" };

async function textOf(file: string): Promise<string | null> {
  return existsSync(file) ? await readFile(file, "utf8") : null;
}

async function filesIn(folder: string): Promise<string[]> {
  if (!existsSync(folder)) return [];
  const entries = await readdir(folder, { withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ name }) => name);
}

/** What must change so that the disk says what the declarations say; nothing is written. */
export async function plan(generators: readonly Generator[], functions: Functions, root: string): Promise<Change[]> {
  const changes: Change[] = [];
  const compare = async (path: string, text: string) => {
    const present = await textOf(join(root, path));
    if (present !== text) changes.push({ path, kind: present === null ? "add" : "change", text });
  };
  for (const generator of generators) {
    if ("path" in generator) {
      await compare(generator.path, await generator.make(functions, (await textOf(join(root, generator.path))) ?? ""));
      continue;
    }
    const made = await generator.make(functions);
    for (const [name, text] of Object.entries(made)) await compare(`${generator.folder}/${name}`, text);
    for (const name of await filesIn(join(root, generator.folder))) {
      if (!(name in made)) changes.push({ path: `${generator.folder}/${name}`, kind: "remove" });
    }
  }
  return changes.sort((a, b) => (a.path < b.path ? -1 : 1));
}

export async function write(changes: readonly Change[], root: string): Promise<void> {
  for (const change of changes) {
    const file = join(root, change.path);
    if (change.kind === "remove") {
      await rm(file);
      continue;
    }
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, change.text);
  }
}
