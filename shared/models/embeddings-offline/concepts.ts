/**
 * A small thesaurus of work and daily life: words that mean the same kind of thing share a concept, so that "parcel" meets "delivery" and
 * "junit" meets "test". It covers many fields, not only those of the first plugins, since knowing what a command is *not* about counts as much.
 */
import { stemmer } from "stemmer";

const CONCEPTS: Readonly<Record<string, string>> = {
  code: "code codebase source function method class module script snippet variable loop callback regex compiler syntax algorithm implementation programming developer coding python java javascript typescript golang rust kotlin swift php ruby scala perl node react angular vue django spring api sdk endpoint middleware handler controller library framework repo repository git github gitlab bitbucket null pointer exception npm package dependency terraform thread async concurrency recursion py ts js tsx jsx cpp rs functioncall",
  change: "pr mr pull merge diff patch commit changeset branch rebase hunk cr lgtm hotfix bugfix refactor rewrite",
  review: "review reviewer critique inspect audit feedback approve eye assess evaluate opinion comment lgtm",
  security: "security secure vulnerability vulnerable unsafe insecure exploit attack injection xss csrf ssrf cve owasp secret credential password token key leak hardcoded encryption sanitize malicious eval dangerous hacker breach risky",
  style: "style lint linter eslint prettier pep8 rubocop convention naming indentation formatting readability standard",
  defect: "bug bugfix defect error fault broken crash wrong fail failure incorrect nan null exception mistake problem issue flaw",
  performance: "performance slow fast speed optimize efficient latency memory cpu complexity bottleneck faster",
  design: "refactor simplify clean cleaner redesign restructure smell duplicate dead complexity nested maintainable",
  test: "test tests tester testing qa quality regression unit integration e2e coverage suite scenario assertion assert mock stub fixture jest pytest junit mocha vitest cypress playwright selenium gherkin cucumber testng tdd bdd uat smoke flaky mutation uncovered untested acceptance testcase",
  ticket: "ticket tickets tkt tix issue incident jira zendesk servicenow linear backlog queue triage sla severity priority p1 p2 p3 assignee unassigned assign reassign escalate overdue blocker epic sprint kanban helpdesk outage reopen ticketreference",
  assign: "assign reassign assignee unassigned delegate allocate owner squad team engineer shift dispatch oncall redistribute",
  status: "status progress state pending open closed resolved blocked waiting overdue stuck done unresolved reopen",
  priority: "priority prioritize urgent urgency severity critical p1 p2 p3 important rank",
  deadline: "deadline due overdue sla late breach hours minutes respond timer expire agreement violate",
  customer: "customer client user buyer shopper subscriber consumer guest caller patron purchaser account",
  complaint: "complaint complain angry furious unhappy upset annoyed frustrated disappointed dissatisfied rude threaten mad sentiment mood tone emotion feedback",
  purchase: "order purchase refund return charge charged payment pay paid invoice billing bill price discount coupon voucher delivery deliver shipment shipping parcel package subscription cancel money checkout item product replacement exchange warranty damaged",
  login: "login log sign signin password account locked access username authentication reset email profile",
  answer: "reply respond response answer apology apologize sorry email mail message chat write letter",
  document: "document doc docs documentation readme guide manual tutorial wiki page article paper report memo minutes summary spec specification prd requirement requirements proposal brief changelog release notes runbook playbook handbook faq glossary adr rfc text paragraph section heading template transcript overview announcement howto onboarding docstring confluence notion docx md pdf",
  writing: "write draft compose author document rewrite edit proofread outline summarize summarise structure describe explain text wording",
  meeting: "meeting call conversation transcript notes minutes discussion interview workshop standup thread slack decision action",
  data: "data dataset database csv xlsx spreadsheet excel table column row sql query select join warehouse record field parquet bigquery postgres mysql pivot export analytics log tsv",
  chart: "chart plot graph histogram dashboard visualize visualization visualise pie bar line scatter funnel diagram axis heatmap",
  statistics: "average mean median deviation variance correlation outlier significant significance trend distribution percentage percent rate ratio total sum count sample regression forecast predict cohort segment number figure metric kpi statistic compare",
  business: "revenue sale sales sell profit margin growth churn conversion retention marketing campaign quarter month monthly year yearly annual q1 q2 q3 q4 kpi arr mrr customer signup signups cost expense budget region product",
  devops: "deploy deployment rollback server cluster kubernetes docker container provision restart scale certificate dns domain infrastructure production staging install backup pod helm",
  food: "pizza food eat dinner lunch breakfast recipe cook bake restaurant wine beer coffee bread cake salmon meal drink fruit calorie kitchen",
  travel: "flight hotel trip travel airport train taxi ticket vacation holiday book tour visa luggage itinerary directions map",
  weather: "weather rain sun snow temperature forecast storm cloudy degrees",
  entertainment: "joke song music movie film game play sing poem story lyrics video novel jazz chess melody youtube tv podcast band",
  language: "translate translation french german spanish english language word meaning spell grammar pronounce dictionary",
  health: "doctor medicine pill pain rash diet exercise gym workout weight sleep disease symptom health hospital pharmacy",
  home: "light lights house home garden plant clean door lamp heating furniture plumber paint room car bicycle",
  calendar: "calendar meeting schedule alarm remind reminder appointment tomorrow invite event clock timer",
  finance: "tax taxes bank stock stocks shares invest loan mortgage salary payroll lottery transfer bill electricity dollar insurance",
  legal: "law legal lawyer sue contract court will lease landlord patent",
  hr: "hire recruit resume resumes cv candidate vacation leave salary payroll interview employee onboarding promotion job",
  image: "photo picture image logo wallpaper background draw paint camera video png jpg icon illustration",
  trivia: "capital president mountain river history planet tall king country population war invented science quantum universe",
  math: "equation solve multiply calculate plus minus square integral algebra convert kilometers miles",
  greeting: "hello hi hey morning evening night bye thanks thank welcome robot",
};

export const CONCEPT_COUNT = Object.keys(CONCEPTS).length;

let conceptsByStem: Map<string, number[]> | undefined;

/** The numbers (below `CONCEPT_COUNT`) of the concepts that a stem belongs to; most stems belong to none. */
export function conceptsOf(stem: string): readonly number[] {
  conceptsByStem ??= byStem();
  return conceptsByStem.get(stem) ?? [];
}

function byStem(): Map<string, number[]> {
  const map = new Map<string, number[]>();
  Object.values(CONCEPTS).forEach((words, concept) => {
    for (const stem of new Set(words.split(" ").map((word) => stemmer(word)))) map.set(stem, [...(map.get(stem) ?? []), concept]);
  });
  return map;
}
