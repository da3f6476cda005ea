/** The platform's request to a plugin, with one thing or another changed. */
export const INPUT = {
  task_id: "task_1",
  task_description: "do",
  envelope_version: "1.0",
  context: { tenant_id: "ten_1", user_id: null },
  metadata: { correlation_id: "cor_1", timestamp: "2026-01-01T00:00:00.000Z" },
};
export const HEADERS = { "content-type": "application/json", "aau-llm-token": "cap_llm", "aau-scoped-token": "cap_scoped" };

export function executeRequest(url: string, input: object | string, headers: Record<string, string> = {}, signal: AbortSignal | null = null): Promise<Response> {
  const body = typeof input === "string" ? input : JSON.stringify({ ...INPUT, ...input });
  return fetch(`${url}/execute`, { method: "POST", headers: { ...HEADERS, ...headers }, body, signal });
}
