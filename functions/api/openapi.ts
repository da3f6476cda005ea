import { http } from "../../shared/host/declare.ts";
import document from "../../shared/host/openapi.generated.json" with { type: "json" };

const text = JSON.stringify(document);

/** The OpenAPI 3.1 document, generated from the declarations of all public functions. */
export default http({
  name: "openapi",
  summary: "The OpenAPI 3.1 document of this API.",
  route: "GET /openapi.json",
  scope: "public",
  needs: [],
  replies: { 200: null },
  documented: { produces: "application/json" },
  scale: { min: 0, max: 3, concurrency: 100 },

  async handle() {
    return { status: 200, raw: text, headers: { "content-type": "application/json; charset=utf-8", "cache-control": "public, max-age=300" } };
  },
});
