/** @aau/sdk: what a plugin is written with. `@aau/sdk/serve` runs it, `@aau/sdk/testing` tests it. */

export type { ChainResult } from "./chaining.ts";
export {
  definePlugin,
  type NodeContext,
  type Plugin,
  type PluginDefinition,
  type PluginGraph,
  type PluginResult,
  type Secret,
} from "./define-plugin.ts";
export { EgressRefused } from "./egress-refused.ts";
export type { ArtifactRef, Attachment, InputEnvelope, KnowledgeChunk, OutputEnvelope, Turn, Warning } from "./envelopes.ts";
export { CallerMistake, ChainFailed, ContentPolicyRefusal, GatewayError, UpstreamUnavailable } from "./errors.ts";
export type { GuardedFetch } from "./guarded-fetch.ts";
export { HealthStatus } from "./health.ts";
export { Manifest } from "./manifest.ts";
export { node } from "./node.ts";
export { quoteData, quoteKnowledge } from "./quote-data.ts";
export type { ChangedTicket, CreatedTickets, NewTicket, Ticket, TicketChange, TicketDetail, TicketFilter, TicketList, TicketPriority, TicketStatus } from "./tickets.ts";
export { timeLimit } from "./time-limit.ts";
