/**
 * ESLint rules for the security branch, and queries over the syntax tree (esquery, through `no-restricted-syntax`) for what no
 * rule of the installed plugins covers. A query's message is its rule id.
 */
import type { Rules } from "./lint-scripts.ts";
import type { Weakness } from "./weakness.ts";

const SQL = String.raw`/^\s*(?:select\s[\s\S]+\sfrom\s|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s)/i`;
const REQUEST = "MemberExpression[object.property.name=/^(?:query|params|body|headers|cookies)$/]";
const FILE_NAMES = "/^(?:readFile|readFileSync|writeFile|writeFileSync|createReadStream|createWriteStream|sendFile|download|unlink|unlinkSync|rm|rmSync|readdir|readdirSync)$/";
const FILE_CALL = `CallExpression:matches([callee.name=${FILE_NAMES}], [callee.property.name=${FILE_NAMES}])`;
const SHELL =
  "CallExpression:matches([callee.name=/^(?:exec|execSync)$/], [callee.object.name=/^(?:cp|childProcess|child_process|shell)$/][callee.property.name=/^(?:exec|execSync)$/])";

export const SECURITY_QUERIES: Record<string, { selector: string; weakness: Weakness }> = {
  "sql-injection": {
    selector: `:not(TaggedTemplateExpression) > TemplateLiteral[expressions.length>0]:has(> TemplateElement:first-child[value.raw=${SQL}]), BinaryExpression[operator='+'][left.value=${SQL}]:not([right.type='Literal'])`,
    weakness: {
      severity: "critical",
      confidence: 0.85,
      cwe: "CWE-89",
      message: "SQL is built from values in the text of the statement; whoever controls a value controls the statement.",
      suggestion: "Pass the values as parameters (`$1`, `?`) or through the query builder.",
    },
  },
  "shell-injection": {
    selector: `${SHELL}[arguments.0.type='TemplateLiteral'][arguments.0.expressions.length>0], ${SHELL}[arguments.0.type='BinaryExpression']`,
    weakness: {
      severity: "critical",
      confidence: 0.85,
      cwe: "CWE-78",
      message: "A shell command is built from values; a value with `;` or `$(…)` runs as a command.",
      suggestion: "Use `execFile` or `spawn` with an array of arguments and without a shell.",
    },
  },
  "tls-verification-off": {
    selector:
      "Property[key.name='rejectUnauthorized'][value.value=false], AssignmentExpression[left.property.name='NODE_TLS_REJECT_UNAUTHORIZED'], Property[key.name='strictSSL'][value.value=false]",
    weakness: {
      severity: "high",
      confidence: 0.95,
      cwe: "CWE-295",
      message: "The certificate of the other side is not verified, so anyone on the way can read and change the traffic.",
      suggestion: "Leave verification on; give a private CA through the `ca` option or NODE_EXTRA_CA_CERTS.",
    },
  },
  "weak-hash": {
    selector: "CallExpression:matches([callee.name=/^createH(?:ash|mac)$/], [callee.property.name=/^createH(?:ash|mac)$/]) > Literal.arguments[value=/^(?:md5|sha1|md4)$/i]",
    weakness: {
      severity: "medium",
      confidence: 0.7,
      cwe: "CWE-328",
      message: "MD5 and SHA-1 can be forged.",
      suggestion: "Use SHA-256; for passwords use scrypt, bcrypt or Argon2.",
    },
  },
  "weak-cipher": {
    selector:
      "CallExpression[callee.property.name=/^create(?:C|Dec)ipher(?:iv)?$/] > Literal.arguments[value=/(?:^des|rc4|-ecb)/i], CallExpression[callee.property.name=/^create(?:C|Dec)ipher$/]",
    weakness: {
      severity: "high",
      confidence: 0.85,
      cwe: "CWE-327",
      message: "This cipher or mode does not protect what it encrypts.",
      suggestion: "Use `aes-256-gcm` with a random nonce per message.",
    },
  },
  "insecure-random": {
    selector:
      "VariableDeclarator[id.name=/token|secret|passw|session|nonce|otp|apikey|salt/i] CallExpression[callee.object.name='Math'][callee.property.name='random'], :function[id.name=/token|secret|passw|session|nonce|otp|apikey|salt/i] CallExpression[callee.object.name='Math'][callee.property.name='random']",
    weakness: {
      severity: "high",
      confidence: 0.85,
      cwe: "CWE-338",
      message: "`Math.random` can be predicted; a secret made from it can be guessed.",
      suggestion: "Use `crypto.randomBytes` or `crypto.randomUUID`.",
    },
  },
  "path-traversal": {
    selector: `${FILE_CALL} ${REQUEST}`,
    weakness: {
      severity: "high",
      confidence: 0.8,
      cwe: "CWE-22",
      message: "A file is named by the request; `../` in it reaches any file that the process may open.",
      suggestion: "Resolve the path and check that it stays below the intended folder, or map ids to files.",
    },
  },
  "open-redirect": {
    selector: `CallExpression[callee.property.name='redirect'] > ${REQUEST}.arguments`,
    weakness: {
      severity: "medium",
      confidence: 0.8,
      cwe: "CWE-601",
      message: "The request decides where the user is sent, which lends this site's name to phishing.",
      suggestion: "Redirect only to paths of this site or to an allow-list.",
    },
  },
  "request-forgery": {
    selector: `CallExpression:matches([callee.name=/^(?:fetch|got|axios|request)$/], [callee.object.name=/^(?:axios|got|http|https)$/]) > ${REQUEST}.arguments`,
    weakness: {
      severity: "high",
      confidence: 0.8,
      cwe: "CWE-918",
      message: "The server fetches a URL that the request chose, which opens internal services to outsiders.",
      suggestion: "Allow known hosts only, and refuse private addresses after DNS resolution.",
    },
  },
  "jwt-unverified": {
    selector: "CallExpression[callee.property.name='verify'] Property[key.name='algorithms'] Literal[value='none'], Property[key.name='ignoreExpiration'][value.value=true]",
    weakness: {
      severity: "critical",
      confidence: 0.85,
      cwe: "CWE-347",
      message: "The token is accepted without a valid signature or past its end.",
      suggestion: "Name the one algorithm that is used, and check signature and expiry.",
    },
  },
  "insecure-cookie": {
    selector: "Property[key.name=/^(?:httpOnly|secure)$/][value.value=false]",
    weakness: {
      severity: "medium",
      confidence: 0.75,
      cwe: "CWE-614",
      message: "The cookie can be read by scripts or travels without TLS.",
      suggestion: "Set `httpOnly`, `secure` and `sameSite`.",
    },
  },
  "dangerous-html": {
    selector: "JSXAttribute[name.name='dangerouslySetInnerHTML']",
    weakness: {
      severity: "high",
      confidence: 0.65,
      cwe: "CWE-79",
      message: "HTML is put into the page as it is; a script in it runs.",
      suggestion: "Render text, or sanitise the HTML first (DOMPurify).",
    },
  },
  "vm-is-no-sandbox": {
    selector: "CallExpression[callee.object.name='vm'][callee.property.name=/^runIn/], NewExpression[callee.object.name='vm'][callee.property.name='Script']",
    weakness: {
      severity: "high",
      confidence: 0.7,
      cwe: "CWE-94",
      message: "node:vm is no security boundary; code in it reaches the whole process.",
      suggestion: "Run foreign code in another process or isolate.",
    },
  },
  "prototype-access": {
    selector: "MemberExpression[property.name='__proto__'], MemberExpression[property.value='__proto__']",
    weakness: {
      severity: "medium",
      confidence: 0.6,
      cwe: "CWE-1321",
      message: "Writing through `__proto__` changes every object.",
      suggestion: "Use `Object.create(null)`, a Map, or `Object.getPrototypeOf`.",
    },
  },
};

const evalWeakness: Weakness = {
  severity: "critical",
  confidence: 0.9,
  cwe: "CWE-95",
  message: "Text is run as code; whoever controls the text controls the process.",
  suggestion: "Parse the data (JSON.parse), or choose from a table of functions.",
};
const htmlWeakness: Weakness = {
  severity: "high",
  confidence: 0.8,
  cwe: "CWE-79",
  message: "HTML made from values is put into the page; a script in a value runs.",
  suggestion: "Use `textContent`, or sanitise the HTML first (DOMPurify).",
};

export const SECURITY_RULES: Record<string, Weakness> = {
  "no-eval": evalWeakness,
  "no-implied-eval": { ...evalWeakness, severity: "high" },
  "no-new-func": { ...evalWeakness, severity: "high" },
  "no-script-url": { severity: "medium", confidence: 0.8, cwe: "CWE-79", message: "A `javascript:` URL runs as code.", suggestion: "Use an event handler." },
  "security/detect-eval-with-expression": evalWeakness,
  "security/detect-child-process": {
    severity: "high",
    confidence: 0.7,
    cwe: "CWE-78",
    message: "A command is run whose text is not fixed.",
    suggestion: "Use `execFile` or `spawn` with an array of arguments and without a shell.",
  },
  "security/detect-unsafe-regex": {
    severity: "medium",
    confidence: 0.7,
    cwe: "CWE-1333",
    message: "This regular expression can take exponential time on a chosen text and stop the process.",
    suggestion: "Rewrite it without nested quantifiers, or bound the input's length.",
  },
  "security/detect-non-literal-regexp": {
    severity: "medium",
    confidence: 0.5,
    cwe: "CWE-1333",
    message: "A regular expression is made from a value, which can be one that never ends.",
    suggestion: "Escape the value, or compare strings.",
  },
  "security/detect-non-literal-require": {
    severity: "medium",
    confidence: 0.6,
    cwe: "CWE-829",
    message: "The module that is loaded depends on a value.",
    suggestion: "Choose from a fixed table of modules.",
  },
  "security/detect-non-literal-fs-filename": {
    severity: "low",
    confidence: 0.4,
    cwe: "CWE-22",
    message: "A file is opened whose name is not fixed.",
    suggestion: "Check that the path stays below the intended folder.",
  },
  "security/detect-pseudoRandomBytes": {
    severity: "high",
    confidence: 0.9,
    cwe: "CWE-338",
    message: "pseudoRandomBytes is not for secrets.",
    suggestion: "Use `crypto.randomBytes`.",
  },
  "security/detect-possible-timing-attacks": {
    severity: "medium",
    confidence: 0.6,
    cwe: "CWE-208",
    message: "Secrets are compared in a time that tells how much of them matched.",
    suggestion: "Use `crypto.timingSafeEqual` on hashes of equal length.",
  },
  "security/detect-disable-mustache-escape": { severity: "high", confidence: 0.8, cwe: "CWE-79", message: "Escaping of HTML is switched off.", suggestion: "Leave escaping on." },
  "security/detect-no-csrf-before-method-override": {
    severity: "medium",
    confidence: 0.7,
    cwe: "CWE-352",
    message: "The method is overridden after the CSRF check.",
    suggestion: "Put `methodOverride` before the CSRF middleware.",
  },
  "security/detect-buffer-noassert": {
    severity: "medium",
    confidence: 0.8,
    cwe: "CWE-119",
    message: "The bounds of the buffer are not checked.",
    suggestion: "Leave out `noAssert`.",
  },
  "security/detect-new-buffer": {
    severity: "medium",
    confidence: 0.8,
    cwe: "CWE-665",
    message: "`new Buffer` can give out old memory.",
    suggestion: "Use `Buffer.from` or `Buffer.alloc`.",
  },
  "security/detect-bidi-characters": {
    severity: "high",
    confidence: 0.9,
    cwe: "CWE-506",
    message: "Invisible marks make this code read otherwise than it runs (Trojan Source).",
    suggestion: "Remove the marks and ask where they came from.",
  },
  "no-unsanitized/property": htmlWeakness,
  "no-unsanitized/method": htmlWeakness,
};

export function rulesWithQueries(rules: Iterable<string>, queries: Record<string, { selector: string }>): Rules {
  return {
    ...Object.fromEntries(Array.from(rules, (name) => [name, "error" as const])),
    "no-restricted-syntax": ["error", ...Object.entries(queries).map(([message, { selector }]) => ({ selector, message }))],
  };
}
