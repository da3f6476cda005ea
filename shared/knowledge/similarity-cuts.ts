/** Written by `npm run calibrate -- knowledge --write` from the fit half of test/corpus/knowledge; do not edit by hand. */

/** The cosine from which a passage is taken to bear on a question. */
export const SIMILARITY_CUTS: Readonly<Record<string, { readonly measured: boolean; readonly cut: number }>> = {
  "offline-hybrid-1": { measured: true, cut: 0.33 },
  "text-embedding-3-small": { measured: false, cut: 0.35 },
};
