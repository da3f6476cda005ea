/** One real PostgreSQL for the whole run, with a migrated template that each test file copies in milliseconds. */
import type { TestProject } from "vitest/node";
import { startWithTemplate } from "./postgres.ts";

declare module "vitest" {
  interface ProvidedContext {
    postgresUrl: string;
  }
}

export default async function setup(project: TestProject) {
  const postgres = await startWithTemplate();
  project.provide("postgresUrl", postgres.url);
  return () => postgres.stop();
}
