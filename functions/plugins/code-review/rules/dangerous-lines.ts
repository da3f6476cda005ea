/**
 * Well-known dangerous calls in languages that no JavaScript library parses. They are ours because the scanners that know these
 * languages (Bandit, gosec, SpotBugs, Brakeman) are programs of other ecosystems; a table of lines finds what a reviewer greps for and
 * claims no more. Every expression runs on one line of at most 5,000 characters and has no nested repetition.
 */
import { addedLines, type ChangedFile, type Line } from "../change.ts";
import type { Weakness } from "./weakness.ts";

interface DangerousLine {
  rule: string;
  languages: readonly string[];
  pattern: RegExp;
  weakness: Weakness;
}

const params = "Pass the values as parameters of the statement.";
const sqlMessage = "SQL is built from values in the text of the statement; whoever controls a value controls the statement.";
const shellMessage = "A shell command is built from values; a value with `;` or `$(…)` runs as a command.";
const tlsMessage = "The certificate of the other side is not verified, so anyone on the way can read and change the traffic.";
const SQL_START = String.raw`(?:select\s[^"']{1,300}\sfrom\s|insert\s+into\s|update\s+\w{1,80}\s+set\s|delete\s+from\s)`;

const sql = (severity: "critical" | "high"): Weakness => ({ severity, confidence: 0.75, cwe: "CWE-89", message: sqlMessage, suggestion: params });

export const DANGEROUS_LINES: readonly DangerousLine[] = [
  {
    rule: "python-eval",
    languages: ["python"],
    pattern: /(?:^|[^\w.])(?:eval|exec)\s?\((?!\s?["'][^"']{0,200}["']\s?\))/,
    weakness: {
      severity: "critical",
      confidence: 0.8,
      cwe: "CWE-95",
      message: "Text is run as code; whoever controls the text controls the process.",
      suggestion: "Use `ast.literal_eval` for data, or choose from a table of functions.",
    },
  },
  {
    rule: "python-shell-true",
    languages: ["python"],
    pattern: /shell\s?=\s?True/,
    weakness: { severity: "high", confidence: 0.85, cwe: "CWE-78", message: shellMessage, suggestion: "Give `subprocess.run` a list of arguments and leave `shell` out." },
  },
  {
    rule: "python-os-system",
    languages: ["python"],
    pattern: /\bos\.(?:system|popen)\s?\(/,
    weakness: { severity: "high", confidence: 0.75, cwe: "CWE-78", message: shellMessage, suggestion: "Use `subprocess.run` with a list of arguments." },
  },
  {
    rule: "python-unsafe-deserialisation",
    languages: ["python"],
    pattern: /\b(?:pickle|cPickle|dill|marshal|shelve)\.(?:loads?|open)\s?\(/,
    weakness: {
      severity: "high",
      confidence: 0.8,
      cwe: "CWE-502",
      message: "Loading such data runs code that the data brings along.",
      suggestion: "Use JSON, or sign the data and check the signature first.",
    },
  },
  {
    rule: "python-yaml-load",
    languages: ["python"],
    pattern: /\byaml\.(?:load|full_load|unsafe_load)(?:_all)?\s?\((?!.{0,200}SafeLoader)/,
    weakness: { severity: "high", confidence: 0.8, cwe: "CWE-502", message: "`yaml.load` can build any Python object, which runs code.", suggestion: "Use `yaml.safe_load`." },
  },
  {
    rule: "python-sql-injection",
    languages: ["python"],
    pattern: new RegExp(String.raw`(?:\bf["']{1,3}\s{0,8}${SQL_START}[^"]{0,500}\{|["']\s{0,8}${SQL_START}[^"]{0,500}["']\s{0,4}(?:%|\+|\.format\())`, "i"),
    weakness: sql("critical"),
  },
  {
    rule: "python-tls-verification-off",
    languages: ["python"],
    pattern: /\bverify\s?=\s?False\b|_create_unverified_context|CERT_NONE/,
    weakness: { severity: "high", confidence: 0.9, cwe: "CWE-295", message: tlsMessage, suggestion: 'Leave verification on; give a private CA with `verify="ca.pem"`.' },
  },
  {
    rule: "python-weak-hash",
    languages: ["python"],
    pattern: /\bhashlib\.(?:md5|sha1)\s?\(/,
    weakness: {
      severity: "medium",
      confidence: 0.65,
      cwe: "CWE-328",
      message: "MD5 and SHA-1 can be forged.",
      suggestion: "Use SHA-256; for passwords use scrypt, bcrypt or Argon2.",
    },
  },
  {
    rule: "python-debug-on",
    languages: ["python"],
    pattern: /\.run\(.{0,200}debug\s?=\s?True/,
    weakness: {
      severity: "high",
      confidence: 0.8,
      cwe: "CWE-489",
      message: "The debugger of the web framework runs code for whoever reaches it.",
      suggestion: "Leave `debug` off outside of development.",
    },
  },
  {
    rule: "go-shell",
    languages: ["go"],
    pattern: /exec\.Command(?:Context)?\(.{0,100}"(?:\/bin\/)?(?:ba)?sh",\s?"-c",\s?(?!")/,
    weakness: { severity: "high", confidence: 0.8, cwe: "CWE-78", message: shellMessage, suggestion: "Run the program itself with its arguments, without a shell." },
  },
  {
    rule: "go-sql-injection",
    languages: ["go"],
    pattern: new RegExp(String.raw`(?:Sprintf\(\s?["\x60]\s{0,8}${SQL_START}[^"]{0,500}%|["\x60]\s{0,8}${SQL_START}[^"]{0,500}["\x60]\s?\+)`, "i"),
    weakness: sql("critical"),
  },
  {
    rule: "go-tls-verification-off",
    languages: ["go"],
    pattern: /InsecureSkipVerify:\s{0,8}true/,
    weakness: { severity: "high", confidence: 0.95, cwe: "CWE-295", message: tlsMessage, suggestion: "Leave verification on; add a private CA to `RootCAs`." },
  },
  {
    rule: "java-sql-injection",
    languages: ["java", "kotlin", "scala", "csharp"],
    pattern: new RegExp(String.raw`["]\s{0,8}${SQL_START}[^"]{0,500}["]\s?\+`, "i"),
    weakness: sql("critical"),
  },
  {
    rule: "java-runtime-exec",
    languages: ["java", "kotlin", "scala"],
    pattern: /getRuntime\(\)\.exec\(.{0,200}\+/,
    weakness: { severity: "high", confidence: 0.8, cwe: "CWE-78", message: shellMessage, suggestion: "Use `ProcessBuilder` with a list of arguments." },
  },
  {
    rule: "java-unsafe-deserialisation",
    languages: ["java", "kotlin", "scala"],
    pattern: /new ObjectInputStream\(|\.readObject\(\)/,
    weakness: {
      severity: "high",
      confidence: 0.7,
      cwe: "CWE-502",
      message: "Reading serialised objects from outside can run code.",
      suggestion: "Use JSON, or set an ObjectInputFilter with an allow-list.",
    },
  },
  {
    rule: "java-weak-crypto",
    languages: ["java", "kotlin", "scala"],
    pattern: /getInstance\("(?:MD5|SHA-?1|DES|RC4|AES\/ECB)[^"]{0,40}"/i,
    weakness: { severity: "medium", confidence: 0.8, cwe: "CWE-327", message: "This algorithm does not protect what it is used on.", suggestion: "Use SHA-256 or AES/GCM." },
  },
  {
    rule: "php-code-or-command",
    languages: ["php"],
    pattern: /(?:^|[^\w>:$])(?:eval|system|shell_exec|passthru|popen|exec|unserialize)\s?\(.{0,300}\$/,
    weakness: {
      severity: "critical",
      confidence: 0.75,
      cwe: "CWE-78",
      message: "A value from a variable is run as code or as a command, or unserialised.",
      suggestion: "Use `proc_open` with an array, and JSON for data.",
    },
  },
  { rule: "php-sql-injection", languages: ["php"], pattern: new RegExp(String.raw`["']\s{0,8}${SQL_START}[^;]{0,500}\$\w`, "i"), weakness: sql("critical") },
  {
    rule: "ruby-code-or-command",
    languages: ["ruby"],
    pattern: /(?:^|[^\w.])(?:eval|system|exec)[\s(].{0,300}#\{|\b(?:Marshal\.load|YAML\.unsafe_load)\b/,
    weakness: {
      severity: "high",
      confidence: 0.75,
      cwe: "CWE-78",
      message: "A value is run as code or as a command.",
      suggestion: "Give `system` separate arguments; use JSON for data.",
    },
  },
  { rule: "ruby-sql-injection", languages: ["ruby"], pattern: /\.(?:where|find_by_sql|execute|order)\(?\s?"[^"]{0,300}#\{/, weakness: sql("critical") },
  {
    rule: "c-unbounded-copy",
    languages: ["c", "cpp"],
    pattern: /(?:^|[^\w])(?:gets|strcpy|strcat|sprintf|vsprintf)\s?\(/,
    weakness: {
      severity: "high",
      confidence: 0.7,
      cwe: "CWE-120",
      message: "This call writes without knowing the size of its target.",
      suggestion: "Use `fgets`, `snprintf`, `strlcpy` with the target's size.",
    },
  },
  {
    rule: "shell-pipe-to-shell",
    languages: ["shell", "docker"],
    pattern: /\b(?:curl|wget)\b[^|]{1,500}\|\s?(?:sudo\s)?(?:ba|z)?sh\b/,
    weakness: { severity: "high", confidence: 0.8, cwe: "CWE-829", message: "A script from the network is run unseen.", suggestion: "Download it, check its digest, then run it." },
  },
  {
    rule: "shell-tls-verification-off",
    languages: ["shell", "docker"],
    pattern: /\bcurl\b[^|;]{0,300}\s(?:-k|--insecure)\b|\bwget\b[^|;]{0,300}--no-check-certificate/,
    weakness: { severity: "high", confidence: 0.85, cwe: "CWE-295", message: tlsMessage, suggestion: "Give the CA with `--cacert`." },
  },
  {
    rule: "world-writable",
    languages: ["shell", "docker"],
    pattern: /\bchmod\s+(?:-R\s+)?0?777\b/,
    weakness: {
      severity: "medium",
      confidence: 0.85,
      cwe: "CWE-732",
      message: "Everyone on the machine may change these files.",
      suggestion: "Give rights to the one user that needs them.",
    },
  },
  {
    rule: "privileged-container",
    languages: ["yaml"],
    pattern: /^\s{0,200}privileged:\s?true\b/,
    weakness: {
      severity: "high",
      confidence: 0.8,
      cwe: "CWE-250",
      message: "The container has the rights of its host.",
      suggestion: "Drop all capabilities and add the one that is needed.",
    },
  },
  {
    rule: "workflow-injection",
    languages: ["yaml"],
    pattern: /run:.{0,300}\$\{\{\s?github\.(?:event\.(?:issue|pull_request|comment|head_commit)|head_ref)/,
    weakness: {
      severity: "high",
      confidence: 0.8,
      cwe: "CWE-78",
      message: "Text from an issue or a pull request becomes part of a shell script.",
      suggestion: "Hand it over in an environment variable and quote that.",
    },
  },
  {
    rule: "terraform-open-to-all",
    languages: ["terraform"],
    pattern: /cidr_blocks\s{0,20}=\s?\[[^\]]{0,200}"0\.0\.0\.0\/0"/,
    weakness: { severity: "medium", confidence: 0.6, cwe: "CWE-732", message: "This rule is open to the whole internet.", suggestion: "Name the networks that need it." },
  },
];

const isComment = (text: string): boolean => /^\s*(?:#(?!\{)|\/\/|\*|--\s)/.test(text);

export function findDangerousLines(file: ChangedFile): { rule: string; line: number; weakness: Weakness }[] {
  const rules = DANGEROUS_LINES.filter((entry) => entry.languages.includes(file.language));
  if (rules.length === 0) return [];
  const code = addedLines(file).filter((line) => !isComment(line.text));
  return code.flatMap((line) => rules.filter((entry) => entry.pattern.test(line.text)).map(({ rule, weakness }) => ({ rule, weakness, line: line.number })));
}

const indentOf = (text: string): number => text.length - text.trimStart().length;
const LOOP = /^\s*(?:async\s+)?(?:for|while|foreach|loop)\b/;

/** Which lines stand inside a loop, read from indentation: exact in Python, and in other languages as true as their formatting. */
export function linesInLoops(lines: readonly Line[]): Set<number> {
  const inside = new Set<number>();
  const loops: number[] = [];
  for (const { text, number } of lines) {
    if (text.trim() === "") continue;
    const indent = indentOf(text);
    while (loops.length > 0 && indent <= (loops.at(-1) ?? 0)) loops.pop();
    if (loops.length > 0) inside.add(number);
    if (LOOP.test(text)) loops.push(indent);
  }
  return inside;
}
