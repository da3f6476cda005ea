import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["embedder"]> = {
  variables: ["OPENAI_API_KEY", "OPENAI_BASE_URL"],
  async open({ config }) {
    if (config.OPENAI_API_KEY) {
      const { openaiEmbedder } = await import("../../models/embeddings-openai.ts");
      return openaiEmbedder({ apiKey: config.OPENAI_API_KEY, baseUrl: config.OPENAI_BASE_URL });
    }
    const { offlineEmbedder } = await import("../../models/embeddings-offline/offline-embedder.ts");
    return offlineEmbedder();
  },
};
