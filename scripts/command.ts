/** What all command lines of this folder have in common: `--help`, one clear sentence for a mistake, and an exit code. */

import { sqlState } from "../shared/db/database.ts";
import { ConfigError } from "../shared/host/config.ts";

/** The command was called in a way that it does not understand; the usage follows the message. */
export class Misuse extends Error {
  override readonly name = "Misuse";
}

/** What went wrong is no fault of this code, and its message says what there is to know. */
export class Trouble extends Error {
  override readonly name = "Trouble";
}

/** @returns the number, or throws Misuse. */
export function wholeNumber(option: string, text: string): number {
  const number = Number(text);
  if (text.trim() === "" || !Number.isSafeInteger(number) || number < 0) throw new Misuse(`--${option} must be a whole number.`);
  return number;
}

/**
 * Runs `main` and sets the exit code: what it resolves to, 2 for a misuse, 1 for trouble. What an operator can mend is told in a sentence; only what
 * nobody foresaw shows where it happened.
 */
export async function asCommand(usage: string, main: (args: string[]) => Promise<number>, args = process.argv.slice(2)): Promise<void> {
  if (args.includes("--help") || args.includes("-h")) {
    console.log(usage);
    return;
  }
  try {
    process.exitCode = await main(args);
  } catch (error) {
    const isMisuse = error instanceof Misuse || codeOf(error).startsWith("ERR_PARSE_ARGS");
    if (isMisuse) console.error(`${sentence(error)}\n\n${usage}`);
    else console.error(isForeseen(error) ? sentence(error) : error);
    process.exitCode = isMisuse ? 2 : 1;
  }
}

const codeOf = (error: unknown): string => (error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "");

/** A setting, a server that does not answer, or one that refuses. */
function isForeseen(error: unknown): boolean {
  if (error instanceof Trouble || error instanceof ConfigError || sqlState(error) !== null) return true;
  return /^(ECONN|ENOTFOUND|EAI_|ETIMEDOUT|EHOSTUNREACH)/.test(codeOf(error)) || (error instanceof Error && error.cause !== undefined && isForeseen(error.cause));
}

function sentence(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.cause instanceof Error) return `${error.message}: ${sentence(error.cause)}`;
  // Of a connection that was tried at several addresses, only the parts say anything.
  if (error instanceof AggregateError && error.message === "") return error.errors.map(sentence).join("; ");
  return error.message;
}
