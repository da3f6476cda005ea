/**
 * Runs synchronous work that must not run for ever. Parsers take exponential time on code that was made for it (Babel needs
 * seconds for `<a>(<a>(…` twenty deep), and nothing inside JavaScript can interrupt them; V8's watchdog behind `vm` can.
 */
import { createContext, Script } from "node:vm";

export const TIMED_OUT = Symbol("timed out");

// The error is made in the other context, so it is no instance of this one's Error.
const isTimeout = (error: unknown): boolean => typeof error === "object" && error !== null && "code" in error && error.code === "ERR_SCRIPT_EXECUTION_TIMEOUT";

/** Not a sandbox: `work` runs with all that it can see. Only its time is limited. */
export function makeTimeLimit(): <Result>(ms: number, work: () => Result) => Result | typeof TIMED_OUT {
  const script = new Script("work()");
  const context = createContext({ work: () => undefined });
  return (ms, work) => {
    let result: ReturnType<typeof work> | typeof TIMED_OUT = TIMED_OUT;
    context.work = () => {
      result = work();
    };
    try {
      script.runInContext(context, { timeout: ms });
    } catch (error) {
      if (!isTimeout(error)) throw error;
      return TIMED_OUT;
    }
    return result;
  };
}
