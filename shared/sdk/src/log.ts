/** One JSON object a line, with the fields that the platform's log search expects. Nothing else can get into a line. */
export interface LogLine {
  level: "info" | "warn" | "error";
  message: string;
  task_id?: string;
  tenant_id?: string;
  node?: string;
  request_id?: string;
  duration_ms?: number;
  tokens_used?: number;
  status?: string;
  error_code?: string | null;
  error_cause?: string | null;
  error_type?: string;
  /** Stack frames only: an error's message may repeat what the tenant sent. */
  frames?: string[];
}

export type Log = (line: LogLine) => void;

/** Lines of one turn of the event loop leave together: a write to stdout is a system call that waits. */
export function logToStdout(pluginName: string): Log {
  let lines = "";
  const write = () => {
    if (lines !== "") process.stdout.write(lines);
    lines = "";
  };
  process.once("exit", write);
  return (line) => {
    if (lines === "") setImmediate(write);
    lines += `${JSON.stringify({ timestamp: new Date().toISOString(), service: `plugin-${pluginName}`, plugin_name: pluginName, ...line })}\n`;
  };
}

/** Where an error was thrown. V8 puts the message before the frames, and a message may imitate them, so it is cut off first. */
export function framesOf(error: unknown): string[] {
  const first = error instanceof AggregateError ? error.errors[0] : error;
  if (!(first instanceof Error) || !first.stack) return [];
  const messageAt = first.stack.indexOf(first.message);
  const frames = messageAt < 0 ? "" : first.stack.slice(messageAt + first.message.length);
  return frames
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => /^at .*(?::\d+:\d+\)?|<anonymous>\)?)$/.test(line))
    .slice(0, 8);
}
