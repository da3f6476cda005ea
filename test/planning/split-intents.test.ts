import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { MAX_INTENTS, splitIntents } from "../../shared/planning/split-intents.ts";

/** Parts, and what each needs; a command without them must stay whole. */
const TABLE: readonly (readonly [command: string, ...parts: (string | readonly [string, ...number[]])[]])[] = [
  // Two commands, the second on the first one's result.
  ["Review this change and create a ticket for each issue", "Review this change", ["create a ticket for each issue", 0]],
  ["Review this change, then create a ticket for each issue.", "Review this change", ["create a ticket for each issue.", 0]],
  ["review the PR and then file tickets for the findings", "review the PR", ["file tickets for the findings", 0]],
  ["Check this diff for security problems. Open a ticket for every one of them.", "Check this diff for security problems.", ["Open a ticket for every one of them.", 0]],
  ["Please review the attached patch; afterwards log the bugs in Jira", "review the attached patch", ["log the bugs in Jira", 0]],
  ["Summarise this complaint and write a reply based on it", "Summarise this complaint", ["write a reply based on it", 0]],
  ["Analyse the sales figures and put the results into a report for the board", "Analyse the sales figures", ["put the results into a report for the board", 0]],
  ["Generate unit tests for cart.ts and write a short document that explains them", "Generate unit tests for cart.ts", ["write a short document that explains them", 0]],
  ["Review this change. If there are critical findings, open a ticket.", "Review this change.", ["If there are critical findings, open a ticket.", 0]],
  ["Review this merge request and, for each problem you find, create a ticket", "Review this merge request", ["for each problem you find, create a ticket", 0]],
  ["Could you review this change and could you also open tickets for the issues?", "review this change", ["open tickets for the issues?", 0]],
  ["I want you to review this change and create a ticket for each bug", "review this change", ["create a ticket for each bug", 0]],
  ["Review this change -> create tickets for the findings", "Review this change", ["create tickets for the findings", 0]],
  ["Find the bugs in this class, after that write tests that show them", "Find the bugs in this class", ["write tests that show them", 0]],
  ["1. Review this change 2. Create a ticket for each finding", "Review this change", ["Create a ticket for each finding", 0]],
  ["Do the following: review this change and create tickets for the findings", "review this change", ["create tickets for the findings", 0]],
  ["Two things:\n- review this change\n- create a ticket for each issue", "review this change", ["create a ticket for each issue", 0]],
  ["Review this change.\nThen create a ticket for each issue.", "Review this change.", ["create a ticket for each issue.", 0]],
  ["Find out what caused the drop in revenue and write a memo with your conclusions", "Find out what caused the drop in revenue", ["write a memo with your conclusions", 0]],
  ["Review the change that broke login and create a ticket for each issue", "Review the change that broke login", ["create a ticket for each issue", 0]],
  ["Triage the new tickets, draft a reply to the customer for the worst one", "Triage the new tickets", ["draft a reply to the customer for the worst one", 0]],
  ["Plot the churn by month and explain it to the customer in an email", "Plot the churn by month", ["explain it to the customer in an email", 0]],
  ["Hi team, review this change and create a ticket for each issue", "review this change", ["create a ticket for each issue", 0]],
  ["Review this change and if there are bugs then create a ticket", "Review this change", ["if there are bugs then create a ticket", 0]],
  ["Review this change and if there are bugs, create a ticket", "Review this change", ["if there are bugs, create a ticket", 0]],
  // The first comes second in the sentence.
  ["After reviewing this change, create a ticket for each issue", "Review this change", ["create a ticket for each issue", 0]],
  ["Create a ticket for each issue after reviewing this change", "Review this change", ["Create a ticket for each issue", 0]],
  ["Once you have reviewed this change, open tickets", "Review this change", ["open tickets", 0]],
  ["Before replying to the customer, check the ticket queue", "check the ticket queue", ["Reply to the customer", 0]],
  ["Review this change before creating tickets for the findings", "Review this change", ["Create tickets for the findings", 0]],
  // Independent of each other.
  ["Review this change and summarise the attached complaints", "Review this change", "summarise the attached complaints"],
  ["Write release notes for version 2.1 and generate tests for the parser", "Write release notes for version 2.1", "generate tests for the parser"],
  ["Review auth.ts. Also answer the customer's question about her invoice.", "Review auth.ts.", "answer the customer's question about her invoice."],
  ["What is our churn this quarter? Create a ticket about the login page.", "What is our churn this quarter?", "Create a ticket about the login page."],
  ["Write a README as well as create a ticket about the missing licence", "Write a README", "create a ticket about the missing licence"],
  ['Reply to "please review it and create a ticket" and plot sales by region', 'Reply to "please review it and create a ticket"', "plot sales by region"],
  ["Review https://example.com/a/pull/1 and forecast sales for May", "Review https://example.com/a/pull/1", "forecast sales for May"],
  // Three.
  [
    "Review this change, create a ticket for each issue and write release notes about the fixes in them",
    "Review this change",
    ["create a ticket for each issue", 0],
    ["write release notes about the fixes in them", 0, 1],
  ],
  [
    "Review this change, summarise the attached complaints and put both into one document",
    "Review this change",
    "summarise the attached complaints",
    ["put both into one document", 0, 1],
  ],
  [
    "Review this change, plot the error rates of May, and create a ticket for each outlier",
    "Review this change",
    "plot the error rates of May",
    ["create a ticket for each outlier", 1],
  ],
  // One command with several verbs or objects.
  ["review and summarise this change"],
  ["Review, test and document this module"],
  ["Review this change"],
  ["Review a.js, b.js and c.js"],
  ["Find bugs, logic errors and missing tests in this class"],
  ["Compare q2 and q3"],
  ["Write design docs and test plans"],
  ["Write a design and a test plan for the checkout"],
  ["Give me the issues and pull requests of last week"],
  ["Review this change carefully and thoroughly"],
  ["Mark 1204 and 1207 as resolved"],
  ["Summarise the review and the tickets"],
  ["sort these inbound messages into billing, technical and other"],
  ["Create a list of bugs, features and reports"],
  // The second verb belongs to somebody else, or is not to be done.
  ["Write a script to review changes and create tickets"],
  ["Write a plugin that can review code and create tickets"],
  ["Tell me how to review a pull request and open a ticket"],
  ["Ask the team to review this change and create a ticket"],
  ["Find all functions that parse dates and create tickets"],
  ["Explain to the customer that we review every change and create a ticket"],
  ["Review this change but do not create tickets"],
  ["Review this change and don't create a ticket"],
  ["Review this change without creating tickets"],
  ["Review this change but don't summarise it and create a ticket"],
  ["Have the bot review the change and create a ticket"],
  ["Tell the customer they must review the terms and create a new account"],
  ["Review the code that runs before creating tickets"],
  ["Either review this change or create a ticket"],
  ["The build creates a report and writes tests, and it fails"],
  // What is quoted, pasted, listed or linked.
  ['Translate "review this change and create a ticket for each issue"'],
  ["Answer this customer: please review my order and create a ticket for the refund"],
  ["Explain `review(x) and create(y)` to me"],
  ["Review this:\n```\n// review the change, then create a ticket\nrun()\n```"],
  ["Create tickets for these:\n- review the login page\n- create a privacy policy\n- write tests for the cart"],
  ["Summarise this mail\n\nHi all, review the contract and create an invoice. Then send it to Tom."],
  ["Review https://example.com/review-this/and-create-a-ticket,then/write?a=b"],
  ["Explain [review this change and create a ticket] and (then write a report about it)"],
  ["Draft an answer to 'review it, then create a ticket' please"],
  ["Summarise: review the change, then create a ticket for each issue"],
  ["Answer: “I want to cancel. Create a refund, then write a confirmation"],
  // Nothing to cut.
  ["and"],
  ["then then then"],
  ["Überprüfe diese Änderung und erstelle ein Ticket für jedes Problem"],
  ["この変更をレビューして、問題ごとにチケットを作成してください"],
  ["review"],
  ["My order never arrived and I want my money back"],
  ["I wrote a class yesterday and it throws, what is wrong?"],
];

/** Pieces of commands, and what may stand around them. */
const PIECES = fc.array(
  fc.oneof(
    fc.constantFrom(
      "review this change",
      "create a ticket",
      "for each issue",
      "then",
      "and",
      ",",
      ".",
      ":",
      "\n",
      "- ",
      "1. ",
      "after reviewing it",
      "before",
      "if",
      "don't",
      '"',
      "'",
      "`",
      "```",
      "(",
      ")",
    ),
    fc.string({ unit: "binary", maxLength: 12 }),
  ),
  { maxLength: 40 },
);

describe("splitIntents", () => {
  for (const [command, ...parts] of TABLE) {
    it(`${parts.length === 0 ? "leaves whole" : `finds ${parts.length} in`}: ${JSON.stringify(command).slice(0, 110)}`, () => {
      const found = splitIntents(command).intents.map(({ text, needs }) => [text, ...needs]);
      expect(found).toEqual(parts.length === 0 ? [[command]] : parts.map((part) => (typeof part === "string" ? [part] : part)));
    });
  }

  it("gives a few parts whatever it is given, in an order in which they can run, and says the same twice", () => {
    fc.assert(
      fc.property(PIECES, (pieces) => {
        const command = pieces.join(" ");
        const { intents } = splitIntents(command);
        expect(splitIntents(command).intents).toEqual(intents);
        expect(intents.length).toBeGreaterThan(0);
        expect(intents.length).toBeLessThanOrEqual(MAX_INTENTS);
        for (const [i, { text, needs }] of intents.entries()) {
          if (intents.length > 1) expect(text.trim()).not.toBe("");
          for (const need of needs) expect(need).toBeLessThan(i);
        }
      }),
      { numRuns: 500 },
    );
  });

  it("never cuts within what is quoted, linked or in brackets", () => {
    const inside = "review this change, then create a ticket for each issue. Write a report and send it";
    for (const [open, close] of [
      ['"', '"'],
      ["“", "”"],
      ["'", "'"],
      ["`", "`"],
      ["```\n", "\n```"],
      ["(", ")"],
      ["[", "]"],
      ["{", "}"],
      ["«", "»"],
    ])
      expect(splitIntents(`Explain ${open}${inside}${close} to me`).intents, open).toHaveLength(1);
    expect(splitIntents(`Explain https://example.com/${inside.replaceAll(" ", "-")}`).intents).toHaveLength(1);
  });
});
