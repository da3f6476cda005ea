import type { NodeContext } from "@aau/sdk";
import { reviewWithModel } from "../ask-model.ts";
import { breather } from "../breathe.ts";
import { type Finding, newSide, type ReadyFile } from "../change.ts";
import { isTestPath } from "../diff/file-kind.ts";
import { linesInLoops } from "../rules/dangerous-lines.ts";
import type { Rules } from "../rules/lint-scripts.ts";
import { rulesWithQueries } from "../rules/script-weaknesses.ts";
import { findingOf, type Weakness } from "../rules/weakness.ts";
import type { BranchInput, ReviewPatch } from "../state.ts";

const PROMPT = `Look for performance problems: queries or requests in loops (N+1), work that grows faster than its input, memory that is never released (listeners, timers, caches without a bound), whole files or tables read into memory, blocking calls in request handlers, missing pagination, repeated work that could be done once.`;

export const MAX_COMPLEXITY = 12;
const MAX_DEPTH = 4;

const N_PLUS_ONE: Weakness = {
  severity: "high",
  confidence: 0.75,
  cwe: "CWE-1050",
  message: "A query or request runs once per element of a loop (N+1); its time grows with the data.",
  suggestion: "Fetch all elements in one query (`IN`, a join, a batch), or run them together with a limit.",
};
const AWAIT_IN_LOOP: Weakness = {
  severity: "medium",
  confidence: 0.5,
  cwe: "CWE-1050",
  message: "Each turn of the loop waits for the one before.",
  suggestion: "Start them together (`Promise.all`, with a limit) unless the order matters.",
};
const LOOPS = ":matches(ForStatement, ForOfStatement, ForInStatement, WhileStatement, DoWhileStatement)";
const QUERY = "CallExpression[callee.property.name=/^(?:query|findOne|findUnique|findFirst|findMany|findById|findByPk|findAll|fetchOne|getOne|executeTakeFirst|aggregate)$/]";
const SYNC =
  "/^(?:readFileSync|writeFileSync|appendFileSync|readdirSync|statSync|existsSync|copyFileSync|execSync|execFileSync|spawnSync|pbkdf2Sync|scryptSync|gzipSync|gunzipSync|deflateSync|inflateSync)$/";

const QUERIES: Record<string, { selector: string; weakness: Weakness }> = {
  "query-in-loop": {
    selector: `${LOOPS} > BlockStatement ${QUERY}, CallExpression[callee.property.name=/^(?:map|forEach|flatMap)$/] > :function.arguments AwaitExpression > ${QUERY}`,
    weakness: N_PLUS_ONE,
  },
  "sync-call": {
    selector: `:function CallExpression[callee.property.name=${SYNC}], :function CallExpression[callee.name=${SYNC}]`,
    weakness: {
      severity: "medium",
      confidence: 0.6,
      message: "A blocking call in a function: while it runs, the process serves nobody.",
      suggestion: "Use the asynchronous form (`node:fs/promises`).",
    },
  },
  "regexp-in-loop": {
    selector: `${LOOPS} > BlockStatement NewExpression[callee.name='RegExp']`,
    weakness: { severity: "low", confidence: 0.6, message: "A regular expression is compiled on each turn of the loop.", suggestion: "Make it once before the loop." },
  },
  "json-clone": {
    selector: "CallExpression[callee.object.name='JSON'][callee.property.name='parse'] > CallExpression.arguments[callee.object.name='JSON'][callee.property.name='stringify']",
    weakness: { severity: "low", confidence: 0.7, message: "Copying through JSON is slow and loses dates, maps and undefined.", suggestion: "Use `structuredClone`." },
  },
  "spread-in-reduce": {
    selector:
      "CallExpression[callee.property.name='reduce'] > :function.arguments:matches([body.type='ObjectExpression'], [body.type='ArrayExpression']) SpreadElement[argument.type='Identifier']",
    weakness: { severity: "low", confidence: 0.5, message: "The result is copied on each step, which is quadratic.", suggestion: "Add to one object or array in a loop." },
  },
};

const RULES: Rules = { ...rulesWithQueries(["no-await-in-loop"], QUERIES), complexity: ["error", MAX_COMPLEXITY], "max-depth": ["error", MAX_DEPTH] };

function weaknessOf(rule: string, text: string): Weakness | null {
  if (rule === "no-restricted-syntax") return QUERIES[text]?.weakness ?? null;
  if (rule === "no-await-in-loop") return AWAIT_IN_LOOP;
  // "… has a complexity of 23. Maximum allowed is 12."
  const measured = Number(/(?:complexity of |\()(\d{1,6})/.exec(text)?.[1] ?? 0);
  if (rule === "complexity")
    return {
      severity: measured > 2 * MAX_COMPLEXITY ? "medium" : "low",
      confidence: 0.8,
      message: `This function has ${measured} independent ways through it (more than ${MAX_COMPLEXITY} are hard to test).`,
      suggestion: "Move parts into functions of their own, or use a table instead of branches.",
    };
  return rule === "max-depth"
    ? { severity: "low", confidence: 0.8, message: `Blocks are nested ${measured} deep.`, suggestion: "Return early, or move the inner part into a function." }
    : null;
}

async function scriptFindings(scripts: readonly ReadyFile[], signal: AbortSignal): Promise<Finding[]> {
  if (scripts.length === 0) return [];
  const { lintScripts } = await import("../rules/lint-scripts.ts");
  const { messages } = await lintScripts(scripts, RULES, signal);
  return messages.flatMap(({ path, rule, text, line }) => {
    const name = rule === "no-restricted-syntax" ? text : rule;
    const weakness = weaknessOf(rule, text);
    // Tests may block and wait: nobody waits for them.
    const isAllowed = isTestPath(path) && (name === "sync-call" || name === "no-await-in-loop" || name === "query-in-loop");
    return weakness && !isAllowed ? [findingOf("performance", name, weakness, { path, line })] : [];
  });
}

/** The same question for languages that no library here parses: a query on a line that stands inside a loop. */
const QUERY_LINE =
  /(?:\.objects\.(?:get|filter)\(|\b(?:cursor|conn|connection|session|db|tx)\.(?:execute|query|QueryRow|Query|Exec)\w{0,20}\(|\brequests\.(?:get|post)\(|\.executeQuery\(|\bmysqli_query\(|->query\(|\.find_by\b)/;

function loopFindings(file: ReadyFile): Finding[] {
  return file.hunks.flatMap((hunk) => {
    const lines = newSide(hunk);
    const inside = linesInLoops(lines);
    return lines
      .filter((line) => line.isChanged && inside.has(line.number) && QUERY_LINE.test(line.text))
      .map((line) => findingOf("performance", "query-in-loop", N_PLUS_ONE, { path: file.path, line: line.number }));
  });
}

const INDENTED = new Set(["python", "go", "java", "kotlin", "php", "ruby", "csharp"]);

/** Complexity, N+1 queries, blocking calls, and the model. */
export async function performance({ batch }: BranchInput, ctx: NodeContext): Promise<ReviewPatch> {
  const byModel = reviewWithModel(ctx, batch, "performance", PROMPT);
  // A rejection while the static rules still run is for the await below, not for the process.
  byModel.catch(() => undefined);
  const breathe = breather(ctx.signal);
  const found: Finding[][] = [];
  for (const file of batch.files) {
    await breathe();
    if (INDENTED.has(file.language) && !file.isTest && !file.isGenerated) found.push(loopFindings(file));
  }
  found.push(
    await scriptFindings(
      batch.files.filter((file) => file.fragments.length > 0),
      ctx.signal,
    ),
  );
  const { findings, isIncomplete } = await byModel;
  return { found: [...found.flat(), ...findings], incomplete: isIncomplete ? ["performance"] : [] };
}
