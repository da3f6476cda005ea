/** What a file is, read from its name. */

const LANGUAGES: Record<string, string> = {
  js: "javascript",
  jsx: "javascript",
  mjs: "javascript",
  cjs: "javascript",
  ts: "typescript",
  tsx: "typescript",
  mts: "typescript",
  cts: "typescript",
  py: "python",
  go: "go",
  java: "java",
  kt: "kotlin",
  kts: "kotlin",
  rb: "ruby",
  php: "php",
  cs: "csharp",
  rs: "rust",
  c: "c",
  h: "c",
  cc: "cpp",
  cpp: "cpp",
  hpp: "cpp",
  swift: "swift",
  scala: "scala",
  sh: "shell",
  bash: "shell",
  sql: "sql",
  vue: "vue",
  svelte: "svelte",
  html: "html",
  css: "css",
  scss: "css",
  json: "json",
  yaml: "yaml",
  yml: "yaml",
  toml: "toml",
  xml: "xml",
  tf: "terraform",
  md: "markdown",
  txt: "text",
};

const nameOf = (path: string): string => path.slice(path.lastIndexOf("/") + 1).toLowerCase();

export function extensionOf(path: string): string {
  const name = nameOf(path);
  const dot = name.lastIndexOf(".");
  return dot > 0 ? name.slice(dot + 1) : "";
}

export function languageOf(path: string): string {
  const name = nameOf(path);
  if (name === "dockerfile" || name.startsWith("dockerfile.")) return "docker";
  const extension = extensionOf(path);
  return Object.hasOwn(LANGUAGES, extension) ? (LANGUAGES[extension] ?? "other") : "other";
}

export const isScript = (language: string): boolean => language === "javascript" || language === "typescript";

const isDataOrProse = new Set(["json", "yaml", "toml", "xml", "markdown", "text", "css", "other"]);
/** Languages in which a line of text can be a statement. */
export const isCode = (language: string): boolean => !isDataOrProse.has(language);

export function isTestPath(path: string): boolean {
  const lower = path.toLowerCase();
  return (
    /(?:^|\/)(?:tests?|__tests__|__mocks__|specs?|e2e|fixtures|testdata)\//.test(lower) || /[._-](?:test|spec)\.[a-z]{1,5}$/.test(lower) || /^test_.{1,200}\.py$/.test(nameOf(path))
  );
}

const GENERATED_NAMES = new Set([
  "package-lock.json",
  "npm-shrinkwrap.json",
  "yarn.lock",
  "pnpm-lock.yaml",
  "bun.lock",
  "composer.lock",
  "poetry.lock",
  "uv.lock",
  "cargo.lock",
  "gemfile.lock",
  "go.sum",
]);

export function isGeneratedPath(path: string): boolean {
  const lower = path.toLowerCase();
  return (
    GENERATED_NAMES.has(nameOf(path)) || /(?:^|\/)(?:node_modules|vendor|dist|third_party)\//.test(lower) || /\.min\.(?:js|css|mjs)$|\.(?:snap|map|pb\.go)$|_pb2\.py$/.test(lower)
  );
}
