/** PostgreSQL without a server: PGlite behind its socket, in a process of its own because its WebAssembly blocks while it works. */
import { PGlite } from "@electric-sql/pglite";
import { pgcrypto } from "@electric-sql/pglite/contrib/pgcrypto";
import { vector } from "@electric-sql/pglite-pgvector";
import { PGLiteSocketServer } from "@electric-sql/pglite-socket";

const [dataDir, port] = process.argv.slice(2);
if (!dataDir || !port) throw new Error("usage: pglite-server.ts <folder> <port>");

const db = await PGlite.create({ dataDir, extensions: { pgcrypto, vector } });
await db.exec("CREATE EXTENSION IF NOT EXISTS vector; CREATE EXTENSION IF NOT EXISTS pgcrypto;");
// Above this number connections would be dropped; every function of the isolated mode keeps a few.
const server = new PGLiteSocketServer({ db, port: Number(port), host: "127.0.0.1", maxConnections: 500 });
await server.start();

async function stop() {
  await server.stop();
  await db.close();
  process.exit(0);
}
process.once("SIGTERM", stop);
// Ctrl-C reaches the whole process group; the parent stops this process last.
process.on("SIGINT", () => {});
