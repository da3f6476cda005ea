/**
 * A small thesaurus of work and daily life: words that mean the same kind of thing share a concept, so that "parcel" meets "delivery" and
 * "junit" meets "test". It covers many fields, not only those of the first plugins, since knowing what a command is *not* about counts as much.
 */
import { stemmer } from "stemmer";

const CONCEPTS: Readonly<Record<string, string>> = {
  code: "code codebase source function method class module script snippet variable loop callback regex compiler syntax algorithm implementation programming developer coding python java javascript typescript golang rust kotlin swift php ruby scala perl node react angular vue django spring api sdk endpoint middleware handler controller library framework repo repository git github gitlab bitbucket null pointer exception npm package dependency terraform thread async concurrency recursion py ts js tsx jsx cpp rs functioncall codes coder programmer engineer software backend frontend branch interface struct enum type generic array list string integer boolean parameter argument constructor inheritance object instance closure promise await mutex lock deadlock goroutines goto lambda iterator recursive routine subroutine procedure expression statement switch case condition operator macro header import export build compile linker runtime stack heap worker pool process serialization parser json xml yaml html css sass webpack vite bundle component hook state props route service microservice graphql grpc rest cache queue schema migration orm index kernel driver firmware regexp query builder template view model implement",
  change:
    "pr mr pull merge diff patch commit changeset branch rebase hunk cr lgtm hotfix bugfix refactor rewrite push pushed merged merging unmerged modification modify edit delta revision version cherry squash conflict before after change changed committed",
  review:
    "review reviewer critique inspect audit feedback approve eye assess evaluate opinion comment lgtm look check checked examine study judge nitpick remark objection verify proofread scrutinize sanity second eyes notice spot advice",
  security:
    "security secure vulnerability vulnerable unsafe insecure exploit attack injection xss csrf ssrf cve owasp secret credential password token key leak hardcoded encryption sanitize malicious eval dangerous hacker breach risky attacker abuse abused escape escaping sanitise permission privilege authorization bypass tamper spoof hijack phishing malware virus hash salt encrypt decrypt certificate cors jwt oauth session cookie hole pentest hacked insecurely unsafely deserialization traversal overflow",
  style:
    "style lint linter eslint prettier pep8 rubocop convention naming indentation formatting readability standard styleguide guideline guide consistent tidy formatter camelcase whitespace tabs quotes import ordering terrible unreadable",
  defect:
    "bug bugfix defect error fault broken crash wrong fail failure incorrect nan null exception mistake problem issue flaw deadlock race hang hangs freeze regression typo misbehave unexpected weird malfunction glitch leak overflow undefined uncaught unhandled corrupt inconsistent",
  performance:
    "performance slow fast speed optimize efficient latency memory cpu complexity bottleneck faster slower quicker quick throughput load heavy expensive profile profiling benchmark cache optimise optimization wasteful big",
  design:
    "refactor simplify clean cleaner redesign restructure smell duplicate dead complexity nested maintainable improve improvement better propose modular decouple abstraction pattern solid dry coupling cohesion extract split reuse simple simpler elegant legacy debt architecture deprecated",
  test: "test tests tester testing qa quality regression unit integration e2e coverage suite scenario assertion assert mock stub fixture jest pytest junit mocha vitest cypress playwright selenium gherkin cucumber testng tdd bdd uat smoke flaky mutation uncovered untested acceptance testcase tested rspec phpunit nunit xunit karma jasmine puppeteer robot appium postman expectation expected spec specs given case cases fuzz boundary equivalence negative positive happy path exploratory manual automate automated automation verification validate validation reproducible reproduce spy fake dummy seed branch lines exercised checklist pass passes fails green red sanity soak stress stabilise stabilize signoff launch",
  ticket:
    "ticket tickets tkt tix issue incident jira zendesk servicenow linear backlog queue triage sla severity priority p1 p2 p3 assignee unassigned assign reassign escalate overdue blocker epic sprint kanban helpdesk outage reopen ticketreference alert alarm case request report bug fault task item card board story workitem freshdesk asana trello servicedesk sev1 sev2 sev3 p0 p4 inbox number duplicate link reject file log escalation major postmortem",
  assign:
    "assign reassign assignee unassigned delegate allocate owner squad team engineer shift dispatch oncall redistribute responsible responsibility ownership hand handover transfer pick picked plate capacity available availability workload rota roster on-call pager colleague people person member group department forward pass give take route dispatcher",
  status:
    "status progress state pending open closed resolved blocked waiting overdue stuck done unresolved reopen news update happened happening eta ongoing finished complete completed active inactive awaiting backlog stage pick picked old oldest newest history",
  priority:
    "priority prioritize urgent urgency severity critical p1 p2 p3 important rank importance low medium high sev1 sev2 sev3 p0 p4 impact blocker minor major bad severe asap first escalate order",
  deadline:
    "deadline due overdue sla late breach hours minutes respond timer expire agreement violate miss missed today tonight elapsed remaining countdown promise promised agreed contract slo target response resolve within limit soon",
  customer:
    "customer client user buyer shopper subscriber consumer guest caller patron purchaser account visitor member household patient tenant lady gentleman sir madam mrs mr people reader follower fan public",
  complaint:
    "complaint complain angry furious unhappy upset annoyed frustrated disappointed dissatisfied rude threaten mad sentiment mood tone emotion feedback nasty fuming outraged rage disgusted terrible awful horrible worst unacceptable cross irritated happy satisfied satisfaction praise thank sad negative positive review rating star polite empathy kind kinder warm nice calm wait waiting hold noise",
  purchase:
    "order purchase refund return charge charged payment pay paid invoice billing bill price discount coupon voucher delivery deliver shipment shipping parcel package subscription cancel money checkout item product replacement exchange warranty damaged bought buying cart basket store shop merchant seller sku receipt overcharged undercharged deposit fee fees tariff plan premium trial renew renewal gift postage carrier courier arrive arrived lost missing wrong broken faulty defective returned compensation compensate credit reimbursement goodwill warehouse stock confirmation booking charger device",
  login:
    "login log sign signin password account locked access username authentication reset email profile unlock unlocked logged logout register registration activation activate deactivate verify verification code 2fa otp credentials settings setting preferences delete close",
  answer:
    "reply respond response answer apology apologize sorry email mail message chat write letter replied responded enquiry inquiry question ask asked reassure apologise tone helpdesk agent call phone hotline contact explain regret greet greeting template canned",
  document:
    "document doc docs documentation readme guide manual tutorial wiki page article paper report memo minutes summary spec specification prd requirement requirements proposal brief changelog release notes runbook playbook handbook faq glossary adr rfc text paragraph section heading template transcript overview announcement howto onboarding docstring confluence notion docx md pdf documents chapter brochure leaflet flyer booklet markdown adoc concept essay instructions instruction steps write-up writeup protocol record agenda newsletter bulletin press blog post narrative statement policy procedure sop charter plan roadmap onepager factsheet datasheet abstract outline appendix footnote citation toc index word gdoc tldr",
  writing:
    "write draft compose author document rewrite edit proofread outline summarize summarise structure describe explain text wording written writes wrote put phrase paraphrase shorten expand elaborate polish formal informal clear presentable spelling grammar typo typos style format structured compile prepare produce present record",
  meeting:
    "meeting call conversation transcript notes minutes discussion interview workshop standup thread slack decision action agreed agreement attendees participants board committee retro retrospective kickoff brainstorm brainstorming whiteboard sync talk said spoke presentation voice recording chat exchange correspondence rough",
  data: "data dataset database csv xlsx spreadsheet excel table column row sql query select join warehouse record field parquet bigquery postgres mysql pivot export analytics log tsv datasets numbers values entries fields cells sheet sheets workbook xls json survey answers responses sensor reading readings measurements series logs tables columns rows aggregate group grouped sum summed count counted filter sort distinct unique top bottom latest list lists returns currency snowflake redshift pandas",
  chart:
    "chart plot graph histogram dashboard visualize visualization visualise pie bar line scatter funnel diagram axis heatmap charts plots graphs bubble treemap sankey boxplot scatterplot trendline timeline infographic legend visual picture draw show",
  statistics:
    "average mean median deviation variance correlation outlier significant significance trend distribution percentage percent rate ratio total sum count sample regression forecast predict cohort segment number figure metric kpi statistic compare averages percentile quantile minimum maximum range spread normal skew share shares proportion portion increase decrease rise fall drop grow grew decline up down difference comparison versus against expected estimate projection projections demand stands out insight insights pattern patterns anomaly anomalies strange unusual best worst highest lowest most least many much",
  business:
    "revenue sale sales sell profit margin growth churn conversion retention marketing campaign quarter month monthly year yearly annual q1 q2 q3 q4 kpi arr mrr customer signup signups cost expense budget region product sold buys bought turnover income earnings ebitda gross net orders customers visitors traffic clicks impressions referrer referrers referral source channel ads adwords seo bounce session sessions pageviews basket ltv cac roi nps engagement renewals renewing subscribers accounts supplier suppliers store stores category segment country market price pricing inventory week weekly daily december january february march april june july august september october november spring summer autumn winter open opened",
  devops:
    "deploy deployment rollback server cluster kubernetes docker container provision restart scale certificate dns domain infrastructure production staging install backup pod helm replica replicas node nodes pods autoscaling load balancer vpn network firewall ssl tls cert renew hosting host machine vm instance linux windows operating system upgrade patching terraform ansible jenkins pipeline ci cd image registry servers release ship tier prod os",
  food: "pizza food eat dinner lunch breakfast recipe cook bake restaurant wine beer coffee bread cake salmon meal drink fruit calorie kitchen tonight hungry snack cheese chicken vegetarian vegan sushi burger pasta salad soup grocery",
  travel:
    "flight hotel trip travel airport train taxi ticket vacation holiday book tour visa luggage itinerary directions map cab tram bus metro station ferry cruise passport suitcase hostel resort beach destination journey ride drive boarding",
  weather: "weather rain sun snow temperature forecast storm cloudy degrees sunny wind windy humid humidity frost heat hot cold umbrella climate",
  entertainment:
    "joke song music movie film game play sing poem story lyrics video novel jazz chess melody youtube tv podcast band relaxing concert theatre cinema series episode quiz riddle knock funny laugh dance dancing guitar piano album playlist artist singer actor dragon bet betting casino poker horse football soccer basketball",
  language:
    "translate translation french german spanish english language word meaning spell grammar pronounce dictionary italian portuguese japanese chinese russian arabic dutch swedish polish korean greek latin translator phrase idiom synonym vocabulary",
  health:
    "doctor medicine pill pain rash diet exercise gym workout weight sleep disease symptom health hospital pharmacy dentist dental nurse surgery vaccine allergy fever headache medication therapy calories yoga running fitness injury blood heart pregnant",
  home: "light lights house home garden plant clean door lamp heating furniture plumber paint room car bicycle bedroom kitchen bathroom garage roof window curtain vacuum dishwasher laundry fridge oven babysitter neighbour repair oil tyre tire engine dim",
  calendar:
    "calendar meeting schedule alarm remind reminder appointment tomorrow invite event clock timer wake wakeup oclock pm am conference room book reserve saturday sunday monday tuesday wednesday thursday friday",
  finance:
    "tax taxes bank stock stocks shares invest loan mortgage salary payroll lottery transfer bill electricity dollar insurance yen euro pound exchange crypto bitcoin pension savings credit debt interest rent fund dividend",
  legal: "law legal lawyer sue contract court will lease landlord patent attorney judge clause clauses licence license liability copyright trademark gdpr regulation divorce",
  hr: "hire recruit resume resumes cv candidate vacation leave salary payroll interview employee onboarding promotion job career applicant vacancy headcount appraisal bonus wage wages holiday days benefits pto maternity",
  image:
    "photo picture image logo wallpaper background draw paint camera video png jpg icon illustration brighter brightness contrast crop resize filter portrait selfie sticker banner poster render 3d clip subtitles dub film podcast slides slide presentation powerpoint",
  trivia:
    "capital president mountain river history planet tall king country population war invented science quantum universe who pope queen ancient roman century author moby moon continent ocean animal animals dinosaur photosynthesis",
  math: "equation solve multiply calculate plus minus square integral algebra convert kilometers miles root squared cubed divide subtract addition fraction geometry triangle probability derivative sum pi",
  greeting: "hello hi hey morning evening night bye thanks thank welcome robot ok okay yo sup nice meet cheers stupid love favourite favorite colour color",
  feelings: "love girlfriend boyfriend wife husband friend lonely sad breakup dating marry feelings happy worry stress",
  supplies: "laptop monitor keyboard paper pens printer toner chair desk supplies stationery equipment headset order",
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
