/** `npm run bench`: what the platform costs, beside hand-written floors on the same servers. `npm run bench -- a b` runs parts. */
import { cpus, loadavg } from "node:os";
import { chain } from "../test/bench/chain.ts";
import { coldStart } from "../test/bench/cold-start.ts";
import { context } from "../test/bench/context.ts";
import { inFlight } from "../test/bench/in-flight.ts";
import { keys } from "../test/bench/keys.ts";
import { money } from "../test/bench/money.ts";
import { pages } from "../test/bench/pages.ts";
import type { Part } from "../test/bench/part.ts";
import { plan } from "../test/bench/plan.ts";
import { retrieval } from "../test/bench/retrieval.ts";
import { routing } from "../test/bench/routing.ts";
import { openStage } from "../test/bench/stage.ts";
import { submit } from "../test/bench/submit.ts";
import { asCommand, Misuse } from "./command.ts";

const PARTS: readonly Part[] = [submit, chain, inFlight, coldStart, pages, retrieval, routing, context, plan, keys, money];

const USAGE = `npm run bench -- [<part> …]

${PARTS.map(({ letter, title }) => `  ${letter.padEnd(10)} ${title}`).join("\n")}`;

await asCommand(USAGE, async (asked) => {
  const unknown = asked.filter((letter) => !PARTS.some((part) => part.letter === letter));
  if (unknown.length > 0) throw new Misuse(`There is no part ${unknown.join(", ")}.`);
  // Every process that is measured is ended with this one.
  process.setMaxListeners(100);
  const print = (text: string) => console.log(text);
  print(
    `Node ${process.version}, ${cpus().length} cores (${cpus()[0]?.model ?? "unknown"}), load before ${loadavg()
      .map((load) => load.toFixed(1))
      .join(" ")}`,
  );
  const stage = await openStage();
  const lost: string[] = [];
  try {
    const { rows } = await stage.db.query("SHOW server_version");
    print(
      `PostgreSQL ${rows[0].server_version} with fsync, Redis ${/redis_version:(\S+)/.exec(await stage.redis.info("server"))?.[1] ?? "unknown"}, every function a process from its production bundle\n`,
    );
    for (const part of PARTS.filter(({ letter }) => asked.length === 0 || asked.includes(letter))) {
      print(`(${part.letter}) ${part.title}; load ${loadavg()[0]?.toFixed(1)}`);
      lost.push(...(await part.run(stage, print)).map((text) => `(${part.letter}) ${text}`));
      print("");
    }
  } finally {
    await stage.stop();
  }
  if (lost.length > 0) {
    print(`Lost:\n${lost.map((text) => `  ${text}`).join("\n")}`);
    process.exit(1);
  }
  print("Nothing was lost.");
  process.exit(0);
});
