/** Values as the document's schemas allow them, and values that no schema means. */
import fc from "fast-check";
import { DOCUMENT, randomIdLike } from "../batteries/declared.ts";
import { EDGE_TEXTS, NAUGHTY_TEXTS, PROTOTYPE_NAMES, UNSTORABLE_TEXTS } from "./bad-texts.ts";
import type { Planted } from "./planted.ts";

export interface Shape {
  $ref?: string;
  type?: string;
  enum?: readonly unknown[];
  anyOf?: readonly Shape[];
  /** Members of which exactly one must be there. */
  oneOf?: readonly { required: readonly string[] }[];
  examples?: readonly unknown[];
  properties?: Readonly<Record<string, Shape>>;
  required?: readonly string[];
  items?: Shape;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  pattern?: string;
  format?: string;
}

export const often = <T>(weight: number, arbitrary: fc.Arbitrary<T>) => ({ weight, arbitrary });
const naughty = fc.oneof(often(3, fc.constantFrom(...NAUGHTY_TEXTS)), often(2, fc.constantFrom(...EDGE_TEXTS)), often(2, fc.constantFrom(...UNSTORABLE_TEXTS)));
export const anyText = fc.oneof(
  often(3, fc.string({ maxLength: 40 })),
  often(2, fc.string({ unit: "grapheme", maxLength: 30 })),
  often(1, fc.string({ unit: "binary", maxLength: 30 })),
  often(3, naughty),
);
/** Also for `__proto__`, which a literal would not make a member of. */
export const owning = (members: readonly (readonly [string, unknown])[]): Record<string, unknown> => Object.fromEntries(members);

const deep = fc.tuple(fc.integer({ min: 60, max: 3_000 }), fc.boolean()).map(([levels, isList]) => {
  let value: unknown = 1;
  for (let i = 0; i < levels; i++) value = isList ? [value] : { a: value };
  return value;
});
const PLAIN_JUNK: readonly unknown[] = [
  null,
  true,
  false,
  0,
  -1,
  1.5,
  2 ** 31,
  2 ** 53,
  1e308,
  -1e308,
  5e-324,
  "",
  " ",
  [],
  {},
  [[]],
  [null],
  { "": 1 },
  "true",
  "1",
  [1, "a", {}],
];
export const junk: fc.Arbitrary<unknown> = fc.oneof(
  often(6, fc.constantFrom(...PLAIN_JUNK)),
  often(5, anyText),
  often(2, fc.jsonValue({ maxDepth: 3 })),
  often(1, deep),
  often(
    1,
    fc.constantFrom(...PROTOTYPE_NAMES).map((name) => owning([[name, { isAdmin: true }]])),
  ),
  often(
    1,
    fc.integer({ min: 100, max: 2_000 }).map((length) => Array.from({ length }, (_, i) => i)),
  ),
);
/** Draws by the schemas, with ids and cursors of what was planted. */
export function valuesOf(world: Planted) {
  const plugin = fc.oneof(often(6, fc.constant("echo")), often(2, fc.constant("keeper")), often(1, fc.constant("no-such-plugin")));
  const idOf = (prefix: string) => {
    const [own, foreign] = [world.own[prefix] ?? [], world.foreign[prefix] ?? []];
    const random = fc.constant(randomIdLike(prefix));
    return fc.oneof(...(own.length > 0 ? [often(8, fc.constantFrom(...own))] : []), ...(foreign.length > 0 ? [often(1, fc.constantFrom(...foreign))] : []), often(1, random));
  };
  const stepId = fc.constantFrom("a", "b", "c", "find", "say");
  const step = fc.record(
    {
      id: stepId,
      plugin,
      version: fc.constantFrom("^1.0.0", "*", ">=1 <2", "^9.0.0", "latest"),
      needs: fc.uniqueArray(stepId, { maxLength: 2 }),
      command: anyText,
      inputs: fc.array(fc.record({ from: stepId, pointer: fc.constantFrom("/result", "/data/a", "", "/secrets", "/data/~2"), as: fc.constantFrom("description", "attachment") }), {
        maxLength: 2,
      }),
      when: fc.oneof(fc.constantFrom('steps.a.status == "success"', "true", "steps.a.data.x > 1", "1 +", "a.b.c()", "("), naughty),
    },
    { requiredKeys: ["id", "plugin"] },
  );

  function value(raw: Shape | undefined, name = ""): fc.Arbitrary<unknown> {
    const shape = raw?.$ref ? (DOCUMENT.components.schemas[raw.$ref.slice(raw.$ref.lastIndexOf("/") + 1)] as Shape) : (raw ?? {});
    const prefix = /^\^([a-z]+)_\[/.exec(shape.pattern ?? "")?.[1];
    if (prefix) return idOf(prefix);
    if (name === "plugin") return plugin;
    if (name === "plan") return fc.array(step, { minLength: 1, maxLength: 4 });
    if (name === "cursor") return world.cursors.length > 0 ? fc.constantFrom(...world.cursors) : anyText;
    // Nobody waits here: nothing runs.
    if (name === "wait") return fc.constant(0);
    if (name === "group_by") return fc.uniqueArray(fc.constantFrom("plugin", "day", "key", "model"), { minLength: 1 }).map((by) => by.join(","));
    if (name === "max_cost_usd") return fc.oneof(fc.constantFrom("0.25", "0", "0.000001", "1e3", 0.25, 1e300, "999999999999999999999"), fc.double());
    if (shape.enum) return fc.constantFrom(...shape.enum);
    if (shape.anyOf && !shape.properties) return fc.oneof(...shape.anyOf.map((one) => value(one)));
    switch (shape.type) {
      case "null":
        return fc.constant(null);
      case "boolean":
        return fc.boolean();
      case "integer":
        return fc.integer({ min: shape.minimum ?? 0, max: shape.maximum ?? 1_000_000 });
      case "number":
        return fc.double({ noNaN: true });
      case "array":
        return fc.array(value(shape.items), { minLength: shape.minItems ?? 0, maxLength: Math.min(shape.maxItems ?? 4, 4) });
      case "object":
        return members(shape);
      case "string":
        return texts(shape);
      default:
        return junk;
    }
  }

  function members({ properties = {}, required = [], oneOf }: Shape): fc.Arbitrary<unknown> {
    if (Object.keys(properties).length === 0)
      return fc.oneof(
        often(3, fc.constantFrom<unknown>({}, { github_api_url: "https://github.example.com/api/v3" }, { coding_standards: { max_line_length: 80 } })),
        often(1, fc.object()),
      );
    // Two of what may be left out: with many at once, something is nearly always wrong between them.
    const some = fc
      .subarray(
        Object.keys(properties).filter((name) => !required.includes(name)),
        { maxLength: Math.min(2, Object.keys(properties).length - required.length) },
      )
      .chain((names) => fc.record(Object.fromEntries([...required, ...names].map((name) => [name, value(properties[name], name)]))));
    if (!oneOf) return some;
    const alternatives = oneOf.map(({ required: [name = ""] }) => name);
    return fc
      .tuple(
        some,
        fc.constantFrom(...alternatives).chain((name) => value(properties[name], name).map((one) => [name, one] as const)),
      )
      .map(([record, chosen]) => owning([...Object.entries(record).filter(([name]) => !alternatives.includes(name)), chosen]));
  }

  function texts({ pattern, format, minLength = 0, maxLength = 60, examples }: Shape): fc.Arbitrary<unknown> {
    if (format === "date-time")
      return fc.oneof(
        often(
          4,
          fc.integer({ min: -1, max: 48 * 60 }).map((minutes) => new Date(Date.now() + minutes * 60_000).toISOString()),
        ),
        often(
          1,
          fc.date({ noInvalidDate: true, min: new Date(0), max: new Date("9999-12-31") }).map((at) => at.toISOString()),
        ),
      );
    if (format === "date") return fc.date({ noInvalidDate: true, min: new Date("2020-01-01"), max: new Date("2030-01-01") }).map((at) => at.toISOString().slice(0, 10));
    if (format === "email") return fc.oneof(often(3, fc.emailAddress()), often(1, fc.constant("somebody-1@example.com")));
    if (format === "uri")
      return fc.oneof(
        often(3, fc.constant("https://hooks.aau.io/tasks")),
        often(2, fc.webUrl()),
        often(1, fc.constantFrom("http://127.0.0.1/", "https://[::1]/", "file:///etc/passwd")),
      );
    if (pattern) return fc.stringMatching(new RegExp(pattern, "u"), { maxLength: Math.min(maxLength, 60) });
    const drawn = anyText.filter((text) => text.length >= minLength);
    return examples ? fc.oneof(fc.constantFrom(...examples), drawn) : drawn;
  }

  return { value, idOf, plugin };
}
