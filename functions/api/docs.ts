import { http } from "../../shared/host/declare.ts";
import { contentSecurityPolicy, docsPage } from "../../shared/host/docs-page.ts";
import document from "../../shared/host/openapi.generated.json" with { type: "json" };

/** One page for every release and host: made on the first request, kept while the instance lives. */
let page: string | undefined;

/** The API's document as a page for people: complete in itself, without scripts or styles from elsewhere. */
export default http({
  name: "docs",
  summary: "The documentation of this API as a page.",
  route: "GET /docs",
  scope: "public",
  needs: ["settings"],
  replies: { 200: null },
  documented: { produces: "text/html" },
  scale: { min: 0, max: 3, concurrency: 100 },

  async handle({ settings }) {
    page ??= await docsPage(document, settings.PUBLIC_URL);
    return {
      status: 200,
      raw: page,
      headers: {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": contentSecurityPolicy(),
        "cache-control": "public, max-age=300",
        "referrer-policy": "no-referrer",
      },
    };
  },
});
