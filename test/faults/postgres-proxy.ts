/**
 * A TCP proxy before PostgreSQL that loses what a network loses: the answer to one chosen statement. It reads the client's messages
 * (a type byte and a length, after a first message without a type) to find the statement.
 *
 * - `committed`: the statement reaches the server and commits; its answer is swallowed and both connections are cut.
 * - `lost`: the statement never reaches the server, and both connections are cut. To the client the two look alike.
 */
import { connect, createServer, type Socket } from "node:net";

export type LostReply = "committed" | "lost";

export interface PostgresProxy {
  port: number;
  /** Does this to the next statement that contains `text`; resolves when it has happened. */
  loseNext(text: string, variant: LostReply): Promise<void>;
  /** Forgets what has not happened. */
  calm(): void;
  close(): Promise<void>;
}

interface Plan {
  text: string;
  variant: LostReply;
  /** A statement that it fits is on its way. */
  isTaken: boolean;
  happened(): void;
}

const READY_FOR_QUERY = "Z".charCodeAt(0);
const [PARSE, BIND, QUERY] = [..."PBQ"].map((letter) => letter.charCodeAt(0));

/** What each message of one client runs: a prepared statement is named once, and bound by that name many times. */
class Statements {
  readonly #texts = new Map<string, string>();

  /** The statement's text, when this message runs one. */
  runBy(type: number, bytes: Buffer): string | null {
    const strings = () => bytes.toString("utf8", 5).split("\0");
    if (type === QUERY) return strings()[0] ?? null;
    if (type === PARSE) {
      const [name = "", text = ""] = strings();
      this.#texts.set(name, text);
    }
    if (type !== BIND) return null;
    const [, name = ""] = strings();
    return this.#texts.get(name) ?? null;
  }
}

/** Cuts a stream into whole messages; the rest waits for its other half. */
class Messages {
  #waiting = Buffer.alloc(0);
  #hasType: boolean;

  /** `hasType` is false for a client's stream, whose first message has none. */
  constructor(hasType: boolean) {
    this.#hasType = hasType;
  }

  *take(chunk: Buffer): Generator<{ type: number; bytes: Buffer }> {
    this.#waiting = Buffer.concat([this.#waiting, chunk]);
    for (;;) {
      const head = this.#hasType ? 1 : 0;
      if (this.#waiting.length < head + 4) return;
      const size = head + this.#waiting.readInt32BE(head);
      if (this.#waiting.length < size) return;
      const bytes = this.#waiting.subarray(0, size);
      this.#waiting = this.#waiting.subarray(size);
      yield { type: this.#hasType ? bytes.readUInt8(0) : 0, bytes };
      this.#hasType = true;
    }
  }
}

export async function startPostgresProxy(target: { host: string; port: number }): Promise<PostgresProxy> {
  const plans = new Set<Plan>();
  const happened = (plan: Plan) => {
    plans.delete(plan);
    plan.happened();
  };
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(target);
    let swallowing: Plan | null = null;
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        client.destroy();
        upstream.destroy();
        // Who sent the statement was killed before its answer came, so nobody lost one: the next statement shall.
        if (swallowing) swallowing.isTaken = false;
      });
    }
    const asked = new Messages(false);
    const statements = new Statements();
    const answered = new Messages(true);

    client.on("data", (chunk) => {
      const outgoing: Buffer[] = [];
      for (const { type, bytes } of asked.take(chunk)) {
        const running = statements.runBy(type, bytes);
        const plan = running === null ? undefined : [...plans].find(({ text, isTaken }) => !isTaken && running.includes(text));
        if (plan) {
          if (plan.variant === "lost") {
            client.destroy();
            happened(plan);
            return;
          }
          plan.isTaken = true;
          swallowing = plan;
        }
        outgoing.push(bytes);
      }
      upstream.write(Buffer.concat(outgoing));
    });
    upstream.on("data", (chunk) => {
      if (!swallowing) return void client.write(chunk);
      for (const { type } of answered.take(chunk)) {
        // Sent after the commit: what the statement did is done.
        if (type !== READY_FOR_QUERY) continue;
        client.destroy();
        happened(swallowing);
        return;
      }
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the proxy has no port");
  return {
    port: address.port,
    loseNext: (text, variant) => new Promise<void>((resolve) => plans.add({ text, variant, isTaken: false, happened: resolve })),
    calm: () => plans.clear(),
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
