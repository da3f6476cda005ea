/** Sentences that no plugin of a workplace catalogue answers. They are the rivals that tell a weak best match from a real one. */
export const BACKGROUND_SENTENCES: readonly string[] = [
  "Tell me a joke or a story to pass the time",
];
