/** (plan) What a second step costs: the same plugin once, and twice in a row with the first result handed to the second. */
import { compare, ROUNDS, startChain, TASKS } from "./added-cost.ts";
import { whole } from "./figures.ts";
import noop from "./functions/plugins/bench-noop/bench-noop.ts";
import type { Part } from "./part.ts";

export const plan: Part = {
  letter: "plan",
  title: `a plan of two steps beside a task of one, ${whole(TASKS)} tasks, ${ROUNDS} rounds each in turn`,

  async run(stage, print) {
    const chain = await startChain(stage, [noop.name]);
    try {
      await stage.clear();
      await stage.register(noop, chain.urls.get(noop.name) ?? "");
      return await compare(stage, print, chain.submit, stage.tenants, [
        { name: "one step", body: () => ({ command: "Do nothing", plugin: noop.name }) },
        {
          name: "two steps",
          body: () => ({
            command: "Do nothing",
            plan: [
              { id: "first", plugin: noop.name },
              { id: "second", plugin: noop.name, needs: ["first"] },
            ],
          }),
        },
      ]);
    } finally {
      await chain.stop();
    }
  },
};
