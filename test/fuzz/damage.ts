/** What is done to a good body: to its values, and to the text that is made of them. */
import fc from "fast-check";
import { JSON_TEXTS, NUMBER_TEXTS, PROTOTYPE_NAMES, UNSTORABLE_TEXTS } from "./bad-texts.ts";
import { anyText, junk, often, owning } from "./values.ts";

/** The nodes of a JSON value down to eight levels, the value itself first, by the way to it. */
function nodesOf(value: unknown, way: readonly (string | number)[] = []): (readonly (string | number)[])[] {
  const inner =
    way.length === 8 ? [] : Array.isArray(value) ? value.map((item, i) => [i, item] as const) : typeof value === "object" && value !== null ? Object.entries(value) : [];
  return [way, ...inner.slice(0, 30).flatMap(([name, item]) => nodesOf(item, [...way, name]))].slice(0, 200);
}

function changed(value: unknown, [first, ...rest]: readonly (string | number)[], change: (node: unknown) => unknown): unknown {
  if (first === undefined) return change(value);
  if (Array.isArray(value)) return value.map((item, i) => (i === first ? changed(item, rest, change) : item));
  return owning(Object.entries(Object(value)).map(([name, item]) => [name, name === first ? changed(item, rest, change) : item]));
}

type Damage = (body: unknown) => unknown;
const at =
  (place: number, change: (node: unknown) => unknown): Damage =>
  (body) => {
    const ways = nodesOf(body);
    return changed(body, ways[place % ways.length] ?? [], change);
  };
const drop = (node: unknown, place: number): unknown => {
  if (Array.isArray(node)) return node.filter((_, i) => i !== place % node.length);
  return typeof node === "object" && node !== null ? owning(Object.entries(node).filter((_, i, all) => i !== place % all.length)) : node;
};
const place = fc.nat({ max: 500 });
export const damage: fc.Arbitrary<Damage> = fc.oneof(
  often(
    5,
    fc.tuple(place, junk).map(([where, value]) => at(where, () => value)),
  ),
  often(
    2,
    fc
      .tuple(place, fc.oneof(fc.constantFrom(...PROTOTYPE_NAMES), anyText, fc.constantFrom("tenant_id", "id", "status")), junk)
      .map(([where, name, value]) => at(where, (node) => (Array.isArray(node) ? [...node, value] : owning([...Object.entries(Object(node)), [name, value]])))),
  ),
  often(
    2,
    fc.tuple(place, place).map(([where, which]) => at(where, (node) => drop(node, which))),
  ),
  often(
    1,
    fc.tuple(place, fc.integer({ min: 2, max: 60 })).map(([where, times]) => at(where, (node) => Array.from({ length: times }, () => node))),
  ),
  // Good in all but this: only the check of the text itself can refuse it.
  often(
    3,
    fc.tuple(place, fc.constantFrom(...UNSTORABLE_TEXTS)).map(([where, text]) => at(where, (node) => (typeof node === "string" ? node + text : node))),
  ),
  often(
    1,
    place.map((where) => at(where, (node) => (typeof node === "string" ? node.repeat(300).slice(0, 20_000) : [node]))),
  ),
);

/** A text, or the bytes of none. */
type TextDamage = (text: string) => string | Uint8Array;
export const textDamage: fc.Arbitrary<TextDamage> = fc.oneof(
  often(
    5,
    fc.constantFrom(...JSON_TEXTS).map((whole) => () => whole),
  ),
  often(
    2,
    place.map((where) => (text: string) => text.slice(0, where % Math.max(1, text.length))),
  ),
  often(
    2,
    fc.tuple(place, fc.uint8Array({ minLength: 1, maxLength: 4 })).map(([where, bytes]) => (text: string) => {
      const whole = Buffer.from(text);
      const cut = where % (whole.length + 1);
      return Buffer.concat([whole.subarray(0, cut), bytes, whole.subarray(cut)]);
    }),
  ),
  often(
    2,
    fc.tuple(place, fc.constantFrom(...NUMBER_TEXTS)).map(([where, number]) => (text: string) => {
      const values = [...text.matchAll(/(?<=:)("[^"\\]*"|-?\d[\d.e+-]*|true|false|null)/g)];
      const one = values[where % Math.max(1, values.length)];
      return one ? `${text.slice(0, one.index)}${number}${text.slice(one.index + one[0].length)}` : number;
    }),
  ),
  often(
    1,
    fc.constantFrom("\ufeff", " ".repeat(66_000), "/**/", "[", "{").map((before) => (text: string) => before + text),
  ),
  often(
    1,
    fc.constantFrom("", "null", "[]", "0", '""', "{}").map((whole) => () => whole),
  ),
  often(
    1,
    fc.constant((text: string) => text.replace(/^\{/, `{${text.slice(1, -1)}${text.length > 2 ? "," : ""}`)),
  ),
  often(
    1,
    fc.constant((text: string) => Buffer.from(text, "utf16le")),
  ),
);
