/** What Neon's proxy does: WebSocket on one side, PostgreSQL's TCP on the other. Only to the one address that it was made for. */
import { connect } from "node:net";
import { WebSocketServer } from "ws";

export async function startWebSocketProxy(allowed: { host: string; port: number }): Promise<{ port: number; connections(): number; stop(): Promise<void> }> {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0 });
  let connections = 0;
  await new Promise((resolve) => server.once("listening", resolve));
  server.on("connection", (socket, request) => {
    const wanted = new URL(request.url ?? "/", "http://proxy").searchParams.get("address");
    if (wanted !== `${allowed.host}:${allowed.port}`) {
      socket.close(1008, "address not allowed");
      return;
    }
    connections += 1;
    const tcp = connect(allowed.port, allowed.host);
    socket.on("message", (data: Buffer) => tcp.write(data));
    tcp.on("data", (data) => socket.send(data));
    for (const end of ["close", "error"] as const) {
      tcp.on(end, () => socket.close());
      socket.on(end, () => tcp.destroy());
    }
  });
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the proxy does not listen");
  return {
    port: address.port,
    connections: () => connections,
    async stop() {
      for (const client of server.clients) client.terminate();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
