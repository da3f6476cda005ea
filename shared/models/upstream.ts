/** The provider behind the llm-gateway, as the gateway sees it. */

export interface UpstreamAnswer {
  status: number;
  headers: Headers;
  /** The provider's bytes as they come: JSON, or Server-Sent Events. */
  body: ReadableStream<Uint8Array>;
}

export interface Upstream {
  /** False when there is no provider: answers then come from the offline model, and everything says so. */
  readonly live: boolean;
  /** One `POST /v1/messages`. Aborting the signal closes the provider's socket. */
  messages(body: Uint8Array, options: { headers: Record<string, string>; signal: AbortSignal }): Promise<UpstreamAnswer>;
  /** The model that a request really goes to. */
  resolveModel(requested: string): string;
  close(): void;
}

export interface UpstreamOptions {
  apiKey?: string;
  baseUrl?: string;
  model?: string;
}

export declare function openUpstream(options: UpstreamOptions): Upstream;
