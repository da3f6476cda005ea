/**
 * Babel's parser in the shape that ESLint wants. It reads JavaScript, JSX and TypeScript, goes on after errors that do not matter for
 * a fragment (a `return` outside of a function), and loads in a tenth of the time of the TypeScript compiler.
 */
import { type ParserOptions, type ParserPlugin, parse } from "@babel/parser";
import { extensionOf } from "../diff/file-kind.ts";

function pluginsFor(path: string): ParserPlugin[][] {
  const extension = extensionOf(path);
  const common: ParserPlugin[] = ["estree", "decorators", "explicitResourceManagement"];
  if (["ts", "mts", "cts"].includes(extension)) return [[...common, "typescript"]];
  if (extension === "tsx") return [[...common, "typescript", "jsx"]];
  // Flow's annotations are close enough to TypeScript's for these rules.
  return [
    [...common, "jsx"],
    [...common, "jsx", "typescript"],
  ];
}

const FORGIVING: ParserOptions = {
  sourceType: "module",
  tokens: true,
  ranges: true,
  errorRecovery: true,
  allowReturnOutsideFunction: true,
  allowAwaitOutsideFunction: true,
  allowSuperOutsideMethod: true,
  allowImportExportEverywhere: true,
  allowUndeclaredExports: true,
  allowNewTargetOutsideFunction: true,
};

/** Errors that only say that the surroundings are missing, or that a program would object to at a later stage. */
const HARMLESS =
  /Outside|NotIn|Illegal(?:Break|Continue|Return)|Duplicate|Redeclar|VarRedeclaration|Undeclared|UnexpectedSuper|Strict|DeletePrivate|InvalidEscapedReserved|Await|Yield|Unexpected(?:Private|NewTarget)|PrivateName|Optional|Accessor|Decorator|Abstract|Override|Modifier|Declare|Initializer/;

function parseAs(text: string, plugins: ParserPlugin[]) {
  const file = parse(text, { ...FORGIVING, plugins });
  const fatal = file.errors?.find((error) => !HARMLESS.test(error.reasonCode));
  if (fatal) throw new SyntaxError(fatal.reasonCode);
  return file;
}

function parseAny(text: string, path: string) {
  const [first = [], ...others] = pluginsFor(path);
  try {
    return parseAs(text, first);
  } catch (error) {
    for (const plugins of others) return parseAs(text, plugins);
    throw error;
  }
}

export function parses(text: string, path: string): boolean {
  try {
    parseAny(text, path);
    return true;
  } catch {
    return false;
  }
}

/** First and last line of each statement at the top of a program that parses. */
export function topLevelStatements(text: string, path: string): { from: number; to: number }[] {
  return parseAny(text, path).program.body.map(({ loc }) => ({ from: loc?.start.line ?? 1, to: loc?.end.line ?? 1 }));
}

interface BabelToken {
  type: string | { label: string; keyword?: string };
  start: number;
  end: number;
  loc: { start: { line: number; column: number }; end: { line: number; column: number } };
}

const TOKEN_TYPES: Record<string, string> = {
  name: "Identifier",
  string: "String",
  num: "Numeric",
  bigint: "Numeric",
  regexp: "RegularExpression",
  template: "Template",
  jsxName: "JSXIdentifier",
  jsxText: "JSXText",
  privateName: "PrivateIdentifier",
};

const tokenType = (type: { label: string; keyword?: string }): string => (type.keyword ? "Keyword" : (TOKEN_TYPES[type.label] ?? "Punctuator"));

/** ESLint's parser interface, for code of files with the same ending as `path`. */
export const babelForEslint = (path: string) => ({
  meta: { name: "babel-for-eslint", version: "1.0.0" },
  parseForESLint(text: string) {
    const file = parseAny(text, path);
    const tokens: BabelToken[] = file.tokens ?? [];
    const place = ({ start, end, loc }: BabelToken) => ({ range: [start, end], loc });
    return {
      ast: Object.assign(file.program, {
        range: [0, text.length],
        tokens: tokens.flatMap((token) => (typeof token.type === "string" ? [] : [{ type: tokenType(token.type), value: text.slice(token.start, token.end), ...place(token) }])),
        comments: (file.comments ?? []).map(({ type, value, start, end, loc }) => ({ type: type === "CommentLine" ? "Line" : "Block", value, range: [start, end], loc })),
      }),
    };
  },
});
