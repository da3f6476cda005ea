/** Redis connections. Commands fail fast: everything in Redis may vanish, so nothing waits for it. */
import { type Command, Redis, type RedisOptions } from "ioredis";

const COMMAND_TIMEOUT_MS = 250;

type Options = Omit<RedisOptions, "replyMapping">;

/** What ioredis keeps of scripts and of pipelines that gather commands. */
interface Gathering {
  scriptsSet: Record<string, { sha: string }>;
  _autoPipelines: Map<string, { _shaToScript: Record<string, unknown> }>;
}

/**
 * ioredis gives a command up when its timer fires, and after a busy moment of this process timers come before the sockets: an
 * answer that lies there would count as none, and Redis as away. Here sockets are read once more before a command is given up.
 */
class PatientRedis extends Redis {
  readonly #timeoutMs: number | undefined;

  constructor(url: string, { commandTimeout, ...options }: Options) {
    super(url, options);
    this.#timeoutMs = commandTimeout;
  }

  /**
   * A pipeline knows the scripts that there were when it began to gather commands. One that is called into it later is not in it, and
   * then ioredis fails where nobody can catch it, so scripts are made known to those that gather.
   */
  override defineCommand(name: string, definition: Parameters<Redis["defineCommand"]>[1]): void {
    super.defineCommand(name, definition);
    const { scriptsSet, _autoPipelines: gathering } = this as unknown as Gathering;
    const script = scriptsSet[name];
    const methods = Object.fromEntries([name, `${name}Buffer`].map((method) => [method, Reflect.get(this, method)]));
    for (const pipeline of gathering.values()) {
      Object.assign(pipeline, methods);
      if (script) pipeline._shaToScript[script.sha] = script;
    }
  }

  override sendCommand(command: Command, stream?: Parameters<Redis["sendCommand"]>[1]): unknown {
    if (this.#timeoutMs !== undefined) {
      const giveUp = () => {
        if (!command.isSettled) command.reject(new Error("Command timed out"));
      };
      const timer = setTimeout(() => setImmediate(giveUp), this.#timeoutMs);
      const stop = () => clearTimeout(timer);
      command.promise.then(stop, stop);
    }
    return super.sendCommand(command, stream);
  }
}

/** For commands. An unreachable Redis costs at most a quarter of a second, and nothing queues up behind it. */
export function connectRedis(url: string, options: Options = {}): Redis {
  const redis = new PatientRedis(url, {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 1,
    commandTimeout: COMMAND_TIMEOUT_MS,
    connectTimeout: 2_000,
    enableAutoPipelining: true,
    retryStrategy: (tries) => Math.min(50 * 2 ** Math.min(tries, 5), 1_000),
    ...options,
  });
  // Reconnecting is ioredis's business; without a listener every failed try would print.
  redis.on("error", () => {});
  redis.connect().catch(() => {});
  return redis;
}

/** For SUBSCRIBE, which waits on purpose. */
export function connectSubscriber(url: string): Redis {
  return connectRedis(url, { commandTimeout: undefined, enableAutoPipelining: false, maxRetriesPerRequest: null });
}

/**
 * For blocking reads. One whose connection breaks fails at once: ioredis would keep it for the next connection, and forget it there when the
 * client is closed before Redis is back, so that whoever waits for it would wait for ever.
 */
export function connectReader(url: string): Redis {
  return connectRedis(url, { commandTimeout: undefined, enableAutoPipelining: false, maxRetriesPerRequest: 0 });
}
