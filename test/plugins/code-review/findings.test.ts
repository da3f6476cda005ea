import { afterAll, describe, expect, it } from "vitest";
import { dataOf, diffAttachment, diffOf, files, found, newHarness } from "./review-of.ts";

const harness = newHarness();
afterAll(() => harness.close());

const rulesIn = async (contents: Record<string, string>, pluginConfig: Record<string, unknown> = {}) =>
  found(await harness.run({ task: "Review this", attachments: files(contents), pluginConfig }));
const only = async (name: string, text: string) => (await rulesIn({ [name]: text })).map((entry) => entry.slice(0, entry.indexOf("@")));

describe("security rules", () => {
  it.each([
    [
      "sql-injection",
      "a.ts",
      "db.query(`SELECT id FROM users WHERE name = '${name}'`);",
      "db.query(sql`SELECT id FROM users WHERE name = ${name}`); db.query('SELECT id FROM users WHERE name = $1', [name]); f(`select a file, ${x}`);",
    ],
    ["sql-injection", "a.js", "db.query('DELETE FROM users WHERE id = ' + id);", "db.query('DELETE FROM users WHERE id = $1', [id]);"],
    ["no-eval", "a.js", "eval(text);", "JSON.parse(text);"],
    ["no-implied-eval", "a.js", "setTimeout('run()', 10);", "setTimeout(run, 10);"],
    ["no-new-func", "a.js", "const f = new Function(body);", "const f = () => body;"],
    ["no-script-url", "a.js", "a.href = 'javascript:run()';", "a.href = '/run';"],
    ["shell-injection", "a.js", "exec(`rm -rf ${folder}`);", "execFile('rm', ['-rf', folder]);"],
    ["tls-verification-off", "a.ts", "new Agent({ rejectUnauthorized: false });", "new Agent({ rejectUnauthorized: true });"],
    ["weak-hash", "a.js", "createHash('md5').update(x);", "createHash('sha256').update(x);"],
    ["insecure-random", "a.js", "const sessionToken = Math.random().toString(36);", "const jitter = Math.random() * 10;"],
    ["path-traversal", "a.js", "res.sendFile(join(root, req.query.name));", "res.sendFile(join(root, 'index.html'));"],
    ["open-redirect", "a.js", "res.redirect(req.query.next);", "res.redirect('/home');"],
    ["request-forgery", "a.js", "fetch(req.query.url);", "fetch(url);"],
    ["jwt-unverified", "a.js", "jwt.verify(t, k, { algorithms: ['none'] });", "jwt.verify(t, k, { algorithms: ['RS256'] });"],
    ["dangerous-html", "a.tsx", "const x = <p dangerouslySetInnerHTML={{ __html: y }} />;", "const x = <p>{y}</p>;"],
    ["no-unsanitized/property", "a.js", "el.innerHTML = value;", "el.textContent = value;"],
    ["security/detect-unsafe-regex", "a.js", "const r = /^(a+)+$/;", "const r = /^a+$/;"],
    ["security/detect-child-process", "a.js", "const cp = require('child_process'); cp.exec(command);", "const cp = require('child_process'); cp.exec('ls');"],
    ["python-eval", "a.py", "value = eval(text)", "value = ast.literal_eval(text)"],
    ["python-shell-true", "a.py", "subprocess.run(cmd, shell=True)", "subprocess.run([cmd])"],
    ["python-unsafe-deserialisation", "a.py", "pickle.loads(data)", "json.loads(data)"],
    ["python-yaml-load", "a.py", "yaml.load(f)", "yaml.load(f, Loader=yaml.SafeLoader)\nyaml.safe_load(f)"],
    ["python-sql-injection", "a.py", `cur.execute(f"SELECT * FROM t WHERE id = {id}")`, `cur.execute("SELECT * FROM t WHERE id = %s", [id])`],
    ["python-tls-verification-off", "a.py", "requests.get(url, verify=False)", "requests.get(url, verify=True)"],
    ["go-sql-injection", "a.go", `db.Query(fmt.Sprintf("SELECT id FROM t WHERE n = '%s'", n))`, `db.Query("SELECT id FROM t WHERE n = $1", n)`],
    ["go-tls-verification-off", "a.go", "&tls.Config{InsecureSkipVerify: true}", "&tls.Config{InsecureSkipVerify: false}"],
    ["java-sql-injection", "A.java", `st.executeQuery("SELECT * FROM t WHERE id = " + id);`, `st.prepareStatement("SELECT * FROM t WHERE id = ?");`],
    ["java-unsafe-deserialisation", "A.java", "Object o = new ObjectInputStream(in);", "Object o = mapper.readValue(in, T.class);"],
    ["php-code-or-command", "a.php", "system($cmd);", "system('ls');"],
    ["c-unbounded-copy", "a.c", "strcpy(a, b);", "strlcpy(a, b, sizeof a);"],
    ["shell-pipe-to-shell", "a.sh", "curl https://example.com/x | sh", "curl -o x https://example.com/x"],
    ["workflow-injection", "ci.yml", "  - run: echo ${{ github.event.issue.title }}", "  - run: echo ${{ github.sha }}"],
    ["dependency-any-version", "package.json", '{\n "dependencies": {\n  "left-pad": "*"\n }\n}', '{\n "dependencies": {\n  "left-pad": "^1.0.0"\n }\n}'],
    ["dependency-insecure-url", "web/package.json", '{\n  "left-pad": "git://example.com/x.git"\n}', '{\n  "version": "1.0.0"\n}'],
    ["dependency-from-url", "package.json", '{\n  "left-pad": "github:someone/left-pad"\n}', `{\n  "left-pad": "github:someone/left-pad#${"a".repeat(40)}"\n}`],
    ["install-script", "package.json", '{\n  "postinstall": "node setup.js"\n}', '{\n  "test": "node setup.js"\n}'],
  ])("finds %s in %s, and leaves the safe form alone", async (rule, name, bad, good) => {
    expect(await only(name, `${bad}\n`)).toContain(rule);
    expect(await only(name, `${good}\n`)).not.toContain(rule);
  });

  it("takes commented lines of other languages for comments", async () => {
    expect(await only("a.py", "# eval(text)\n")).toEqual([]);
  });

  it("gives each security finding its severity, CWE and OWASP class", async () => {
    await harness.run({ task: "Review", attachments: files({ "a.js": "eval(text);\n" }) });
    const report = Buffer.from(harness.lastRun.artifacts.get("review.md")?.content ?? "").toString();
    expect(report).toMatch(/no-eval, CWE-95 · A03:2021 Injection · security/);
  });
});

describe("changed lines only", () => {
  const hunk = [" eval(before);", "-eval(removed);", "+eval(added);", " password = 'hunter2-abc9'", " eval(after);"];

  it("says nothing of lines that the change leaves or removes", async () => {
    const output = await harness.run({ task: "Review", attachments: diffAttachment(diffOf("src/a.js", 10, hunk)) });
    expect(found(output)).toEqual(["no-eval@src/a.js:11"]);
    expect(dataOf(output)).toMatchObject({ files_reviewed: 1, lines_changed: 2, summary: { critical: 1, high: 0, medium: 0, low: 0 } });
  });

  it("holds for languages that are read line by line", async () => {
    const output = await harness.run({ task: "Review", attachments: diffAttachment(diffOf("a.py", 1, [" eval(a)", "+eval(b)"])) });
    expect(found(output)).toEqual(["python-eval@a.py:2"]);
  });

  it("has nothing to say of a change that only deletes", async () => {
    const output = await harness.run({
      task: "Review",
      attachments: diffAttachment("diff --git a/d.js b/d.js\ndeleted file mode 100644\n--- a/d.js\n+++ /dev/null\n@@ -1 +0,0 @@\n-eval(x)\n"),
    });
    expect(output.status).toBe("partial");
    expect(dataOf(output)).toMatchObject({ comments: [], files_reviewed: 0, lines_changed: 1 });
  });
});

describe("style", () => {
  it("finds debugger, console and work left behind, and is milder in tests", async () => {
    expect(await rulesIn({ "a.js": "debugger;\nconsole.log(1);\n// TODO later\n// TODO #12 later\n" })).toEqual(["no-console@a.js:2", "no-debugger@a.js:1", "todo@a.js:3"]);
    expect(await rulesIn({ "a.test.js": "console.log(1);\n" })).toEqual([]);
  });

  it("applies the tenant's standards", async () => {
    const coding_standards = {
      max_line_length: 40,
      forbidden_patterns: [{ pattern: "moment\\(", message: "Use Temporal" }],
      required_eslint_rules: { "no-var": "error", "prefer-template": 2, eqeqeq: ["error", "always"] },
    };
    expect(await rulesIn({ "a.js": `var a = moment();\nconst b = "${"x".repeat(50)}";\n` }, { coding_standards })).toEqual([
      "forbidden-pattern-1@a.js:1",
      "max-line-length@a.js:2",
      "no-var@a.js:1",
    ]);
  });

  it.each([
    ["coding_standards.max_line_length", { max_line_length: "long" }],
    ["coding_standards.max_line_lenght", { max_line_lenght: 100 }],
    ["coding_standards.forbidden_patterns", { forbidden_patterns: [{ nothing: 1 }] }],
    ["coding_standards.required_eslint_rules", { required_eslint_rules: { "no-var": "sometimes" } }],
    ["coding_standards.required_eslint_rules", { required_eslint_rules: { __proto__x: "error" } }],
  ])("refuses standards that do not fit their schema: %s", async (where, coding_standards) => {
    const { status, error, error_cause } = await harness.run({ task: "Review", attachments: files({ "a.js": "var a;\n" }), pluginConfig: { coding_standards } });
    expect([status, error_cause]).toEqual(["failed", "caller"]);
    expect(error).toContain(where);
  });

  it("leaves out what makes no sense and says so once, however many batches there are", async () => {
    const coding_standards = {
      forbidden_patterns: [
        { pattern: "(?=a)b", message: "x" },
        { pattern: "[", message: "x" },
      ],
      required_eslint_rules: { "no-such-rule": "error", "id-match": ["error", "^(a+)+$"] },
    };
    const output = await harness.run({
      task: "Review",
      attachments: files({ "a/a.js": "var a;\n", "b/b.py": "x = 1\n", "c/c.js": "var a;\n" }),
      pluginConfig: { coding_standards },
    });
    const settings = output.warnings.filter((warning) => warning.code === "INVALID_SETTING").map((warning) => warning.message);
    expect(new Set(settings).size).toBe(settings.length);
    for (const word of ["forbidden_patterns[0]", "forbidden_patterns[1]", "no-such-rule", "id-match"]) expect(settings.join("\n")).toContain(word);
    expect(output.status).toBe("partial");
  });

  it("runs a pattern that would explode elsewhere in linear time", async () => {
    const coding_standards = { forbidden_patterns: [{ pattern: "^(a+)+$", message: "x" }] };
    expect(await rulesIn({ "a.js": `// ${"a".repeat(4000)}!\n` }, { coding_standards })).toEqual([]);
  });

  it("does not ask a fragment for what only a whole file can answer", async () => {
    const coding_standards = { required_eslint_rules: { "no-undef": "error" } };
    const inDiff = await harness.run({ task: "Review", attachments: diffAttachment(diffOf("a.js", 5, ["+use(other);"])), pluginConfig: { coding_standards } });
    expect(found(inDiff)).toEqual([]);
    expect(await rulesIn({ "a.js": "use(other);\n" }, { coding_standards })).toContain("no-undef@a.js:1");
  });
});

describe("bugs and performance without a model", () => {
  it.each([
    ["valid-typeof", "if (typeof x === 'nubmer') y();", "if (typeof x === 'number') y();"],
    ["no-dupe-keys", "x = { a: 1, a: 2 };", "x = { a: 1, b: 2 };"],
    ["no-cond-assign", "if (a = b) c();", "if (a === b) c();"],
    ["use-isnan", "if (a === NaN) c();", "if (Number.isNaN(a)) c();"],
    ["query-in-loop", "for (const a of b) { await db.query(q, [a]); }", "const a = await db.query(q);"],
    ["no-await-in-loop", "for (const a of b) { await send(a); }", "await Promise.all(b.map(send));"],
    ["sync-call", "app.get('/', (req, res) => res.send(readFileSync('x')));", "const page = readFileSync('x');"],
    ["json-clone", "const b = JSON.parse(JSON.stringify(a));", "const b = structuredClone(a);"],
    ["complexity", `function f(a) {\n${"  if (a) b();\n".repeat(13)}}`, `function f(a) {\n${"  if (a) b();\n".repeat(5)}}`],
    ["max-depth", "if(a){if(b){if(c){if(d){if(e){f()}}}}}", "if(a){if(b){f()}}"],
  ])("finds %s, and leaves the sound form alone", async (rule, bad, good) => {
    expect(await only("a.mjs", `${bad}\n`)).toContain(rule);
    expect(await only("a.mjs", `${good}\n`)).not.toContain(rule);
  });

  it("finds queries in loops of other languages", async () => {
    expect(await rulesIn({ "a.py": "for x in xs:\n    row = cursor.execute(q, x)\nrow = cursor.execute(q)\n" })).toEqual(["query-in-loop@a.py:2"]);
  });
});

describe("what a review does not read", () => {
  it("searches generated files for secrets only, and says so", async () => {
    const output = await harness.run({ task: "Review", attachments: files({ "dist/app.js": "eval(a);\n", "app.min.js": "eval(a);\n", "b.js": "run();\n" }) });
    expect(found(output)).toEqual([]);
    expect(output.warnings.map((warning) => warning.code)).toEqual(["GENERATED_FILES"]);
  });

  it("names files whose pieces do not parse", async () => {
    const output = await harness.run({ task: "Review", attachments: files({ "a.js": "let x = = ;\n" }) });
    expect(output.warnings.find((warning) => warning.code === "NOT_ANALYSABLE")?.message).toContain("a.js");
    expect(output.confidence).toBeLessThan(0.6);
  });

  it("keeps a rule from flooding the report", async () => {
    const output = await harness.run({ task: "Review", attachments: files({ "a.js": "console.log(1);\n".repeat(500) }) });
    expect(dataOf(output).comments).toHaveLength(50);
    expect(output.warnings.map((warning) => warning.code)).toEqual(["FINDINGS_CUT"]);
  });
});
