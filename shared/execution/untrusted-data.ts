/** What a schema of open objects lets through and nothing behind it should meet. */

const MAX_DEPTH = 100;

/** What is wrong with a JSON value from outside, or null. It goes through the value without recursion, so that depth costs memory only. */
export function troubleInData(value: unknown): string | null {
  let level: unknown[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > MAX_DEPTH) return `is nested deeper than ${MAX_DEPTH} levels`;
    const next: unknown[] = [];
    for (const one of level) {
      if (typeof one !== "object" || one === null) continue;
      // JSON.parse makes it an own key; whoever copies the object later would set a prototype.
      if (Object.hasOwn(one, "__proto__")) return "has a key __proto__";
      for (const member of Array.isArray(one) ? one : Object.values(one)) if (typeof member === "object" && member !== null) next.push(member);
    }
    level = next;
  }
  return null;
}
