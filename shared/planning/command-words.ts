/** The words by which `splitIntents` knows a command: closed lists, so that what they do not hold is never cut. English only. */

const words = (text: string): ReadonlySet<string> => new Set(text.trim().split(/\s+/));

function byFirstWord(phrases: readonly string[]): Map<string, string[][]> {
  const map = new Map<string, string[][]>();
  for (const phrase of phrases) {
    const [first = "", ...rest] = phrase.split(" ");
    map.set(first, [...(map.get(first) ?? []), [first, ...rest]]);
  }
  return map;
}

/** Verbs that hardly ever stand for a thing: with any object behind them they begin a command. */
const PLAIN_VERBS = words(`
  add analyse analyze announce answer apply approve arrange ask assign attach calculate categorise categorize classify clean close collect compare compile compose compute
  confirm convert create decide define delete deliver deploy derive describe detect determine develop diagnose distribute edit enrich escalate evaluate
  examine explain export extract fetch fill find flag format fix gather generate get give group identify implement improve inform inspect investigate invite list locate
  make mark measure merge migrate move name notify optimise optimize organise organize outline parse perform pick plot post predict prepare prioritise prioritize produce
  proofread propose prove provide publish put raise read reassign recommend redact refactor reject remind remove rename rephrase reply reproduce resolve respond restructure
  rewrite route run save say scan send set share shorten show simplify solve sort spot start store submit suggest summarise summarize tell tidy transform translate triage turn
  update upload validate verify visualise visualize write
`);

/** Verbs that are as often a thing ("a test plan"): they begin a command only where a determiner or a name follows. */
const NOUN_VERBS = words(
  "address audit balance break build catch change chart check close comment copy cover debug design document draft email file forecast graph invoice label link log look monitor open order plan query rank rate record report review schedule search ship split test ticket track walk warn watch",
);

export const isPlainVerb = (word: string): boolean => PLAIN_VERBS.has(word);
export const isNounVerb = (word: string): boolean => NOUN_VERBS.has(word);
export const isCommandVerb = (word: string): boolean => PLAIN_VERBS.has(word) || NOUN_VERBS.has(word);

/** What may follow a noun-like verb so that it is one: "review the change", "file 3 bugs", "check whether". */
export const OBJECT_STARTS = words(`
  the a an this that these those my our your his her its their each every all any some no both another one two three four five six it them me us him everything anything
  what which who how why where whether if whatever through into over for out at on up
`);

/** Compounds that look like a verb with its object. */
export const COMPOUNDS =
  /^(?:test (?:plan|case|suite|script|data|report|result|strateg|matri|scenario|coverage)|design (?:doc|spec|review|system)|review (?:comment|note|report|process)|report (?:card|template)|log (?:file|entr|message|line|output)|query (?:plan|result)|change (?:log|request|set|s\b)|file (?:name|format|path|size|type)|plan (?:b|item)|order (?:number|detail|item|history)|ticket (?:number|queue|list|status)|search (?:result|bar|term)|record (?:type|label)|check ?list|draft (?:version|mail))/;

/** Come before the verb and say nothing of what to do. */
export const FILLERS = words(
  "and then also finally lastly next afterwards afterward later subsequently plus please kindly just too additionally furthermore moreover first firstly second secondly third thirdly now so but thanks ok okay hi hello hey well again simply quickly carefully briefly automatically either immediately",
);

/** Ways of asking, each followed by the verb, by their first word. */
export const POLITE: ReadonlyMap<string, readonly (readonly string[])[]> = byFirstWord([
  "can you",
  "could you",
  "would you",
  "will you",
  "i would like you to",
  "i'd like you to",
  "i would like to",
  "i'd like to",
  "i want you to",
  "i want to",
  "i need you to",
  "i need to",
  "we need to",
  "we want to",
  "you should",
  "you must",
  "you can",
  "you need to",
  "you have to",
  "make sure to",
  "make sure you",
  "make sure that you",
  "be sure to",
  "don't forget to",
  "do not forget to",
  "remember to",
  "feel free to",
  "go ahead and",
  "go and",
  "help me to",
  "help me",
  "help us",
  "try to",
  "let's",
  "let us",
  "after that",
  "after this",
  "once done",
  "when done",
  "once finished",
  "when finished",
  "once that is done",
  "once this is done",
  "when you are done",
  "when you're done",
  "when that is done",
  "in the end",
  "at the end",
  "in addition",
  "as well as",
  "on top of that",
  "at the same time",
  "in parallel",
  "as a next step",
  "as a second step",
]);

/** Begin an adjunct that ends with a comma, behind which the verb stands: "for each issue, create a ticket". */
export const ADJUNCT_STARTS = words("after before based for from with using if when once in given as unless out per where depending according on should per under at to");

/** Past forms that do not end in -ed: a verb after them cannot be their partner, so "that broke login and create a ticket" can be cut. */
const PAST = words(
  "broke came went made got did wrote sent found left lost took gave said ran saw changed kept built bought brought caught fell felt held knew led met paid put read sold set shut spoke spent stood told thought threw understood won began chose drew drove ate flew forgot hid rose stole swam wore is are was were am has have had does did 's 're 've",
);

/** A form that shows its tense or person: it cannot be the partner of a bare verb. */
export const isFiniteForm = (word: string): boolean => PAST.has(word) || word.endsWith("ed") || (word.endsWith("s") && !word.endsWith("ss"));

export const MODALS = words("can could should must will would may might shall to");
export const SUBJECTS = words("i we you they");
export const RELATIVES = words("that which who whom whose");
export const QUESTION_WORDS = words("what which who whom whose why how when where");
export const AUXILIARIES = words("is are was were do does did can could should would will has have had many much long often");
/** Followed by the bare verb of somebody else: "have the team review it". */
export const CAUSATIVES = words("have let help watch");
export const NEGATIONS = words("not never no nothing don't dont without cannot can't won't nor neither");
/** After these a full stop ends no sentence. */
export const ABBREVIATIONS = words("e.g i.e eg ie etc vs mr mrs ms dr prof no nr approx ca fig inc ltd co st cf resp");

const forms = new Map<string, string>();
for (const verb of [...PLAIN_VERBS, ...NOUN_VERBS]) {
  const stem = verb.endsWith("e") ? verb.slice(0, -1) : verb;
  const stems = verb.endsWith("y") ? [stem, `${verb.slice(0, -1)}i`] : [stem, `${stem}${stem.at(-1)}`];
  for (const s of stems) for (const ending of ["ing", "ed"]) if (!forms.has(s + ending)) forms.set(s + ending, verb);
}
for (const [form, verb] of [
  ["written", "write"],
  ["made", "make"],
  ["found", "find"],
  ["done", "do"],
  ["sent", "send"],
  ["built", "build"],
  ["got", "get"],
  ["read", "read"],
] as const)
  forms.set(form, verb);

/** "reviewing", "reviewed" → "review"; null for other words. */
export const baseOf = (form: string): string | null => forms.get(form) ?? null;
