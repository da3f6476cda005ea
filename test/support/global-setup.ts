/** One real PostgreSQL for the whole run, with a migrated template that each test file copies in milliseconds. */
import type { TestProject } from "vitest/node";
import { migrate } from "../../scripts/migrate.ts";
import { startPostgres } from "./postgres.ts";

declare module "vitest" {
  interface ProvidedContext {
    postgresUrl: string;
  }
}

export default async function setup(project: TestProject) {
  const postgres = await startPostgres();
  project.provide("postgresUrl", postgres.url);
  const template = new URL(postgres.url);
  await postgres.createDatabase("aau_template");
  template.pathname = "/aau_template";
  try {
    await migrate(template.href);
  } catch (error) {
    await postgres.stop();
    throw error;
  }
  return () => postgres.stop();
}
