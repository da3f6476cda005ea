/** Fetches the diff of a GitHub pull request, github.com's or a GitHub Enterprise server's. */
import { CallerMistake, EgressRefused, type GuardedFetch, type Secret, timeLimit } from "@aau/sdk";

export const GITHUB_API = "https://api.github.com";
export const MAX_DIFF_BYTES = 5 * 1024 * 1024;
const TIMEOUT_MS = 20_000;
const MAX_REDIRECTS = 3;

export interface PullRequest {
  host: string;
  owner: string;
  repo: string;
  number: number;
}

/**
 * GitHub itself did not do what was asked. Told to the caller, who can wait or attach the diff, and not counted against this plugin: its
 * circuit must not open for those who need no GitHub.
 */
function unavailable(what: string, cause?: unknown): CallerMistake {
  return new CallerMistake(`${what}. Try again in a few minutes, or attach the diff.`, { cause });
}

const PULL_URL = /https:\/\/([a-z0-9.-]{1,253}(?::\d{1,5})?)\/([A-Za-z0-9][\w.-]{0,99})\/([\w.-]{1,100})\/pulls?\/(\d{1,9})\b/i;

/** The first pull-request URL in a text. Other URLs, `http:` ones and names that would climb out of the API's path are not one. */
export function findPullRequest(text: string): PullRequest | null {
  const [, host, owner, repo, number] = PULL_URL.exec(text.slice(0, 100_000)) ?? [];
  if (!host || !owner || !repo || !number || /^\.+$/.test(repo)) return null;
  return { host: host.toLowerCase(), owner, repo, number: Number(number) };
}

const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** The base URL of the API, from the tenant's `github_api_url` where it is set. */
export function apiBase(configured: string | null): URL {
  const problem = "The setting github_api_url must be an https URL such as https://github.example.com/api/v3.";
  if (configured === null) return new URL(GITHUB_API);
  if (!URL.canParse(configured)) throw new CallerMistake(problem);
  const url = new URL(configured);
  const isSafe = url.protocol === "https:" || (url.protocol === "http:" && LOOPBACK.has(url.hostname));
  if (!isSafe || url.username || url.password || url.search || url.hash) throw new CallerMistake(problem);
  return url;
}

/** A pull request of one server must not be looked up, with the token, on another. */
function checkHost(pull: PullRequest, base: URL): void {
  const web = base.hostname === "api.github.com" ? ["github.com", "www.github.com"] : [base.host, base.hostname.replace(/^api\./, "")];
  if (LOOPBACK.has(base.hostname) || web.includes(pull.host)) return;
  throw new CallerMistake(`${pull.host} is not the GitHub server of this tenant (${web[0]}). Set github_api_url in the plugin's configuration, or attach the diff.`);
}

async function readCapped(response: Response): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength;
    if (size > MAX_DIFF_BYTES) throw new CallerMistake("The pull request's diff is larger than 5 MB. Attach the part that should be reviewed.");
    chunks.push(chunk);
  }
  return new TextDecoder().decode(Buffer.concat(chunks));
}

/** GitHub says 403 for two things: no permission, and no requests left. */
function isRateLimited(response: Response): boolean {
  return response.status === 429 || (response.status === 403 && (response.headers.get("x-ratelimit-remaining") === "0" || response.headers.has("retry-after")));
}

function refusal(response: Response, pull: PullRequest, hasToken: boolean): Error {
  const what = `${pull.owner}/${pull.repo}#${pull.number}`;
  if (isRateLimited(response)) {
    return hasToken
      ? unavailable("GitHub's rate limit for this token is used up")
      : new CallerMistake("GitHub's limit for requests without a token is used up. Set the secret github_token, or attach the diff.");
  }
  switch (response.status) {
    case 401:
      return new CallerMistake("GitHub does not accept the secret github_token: it is wrong, expired or revoked.");
    case 403:
      return new CallerMistake(
        `GitHub does not let ${hasToken ? "the secret github_token" : "a request without a token"} read ${what}.${hasToken ? " It needs read access to pull requests." : " Set the secret github_token."}`,
      );
    case 404:
      return new CallerMistake(`GitHub has no pull request ${what}${hasToken ? " that the secret github_token may see" : ", or it is private: then set the secret github_token"}.`);
    case 406:
    case 422:
      return new CallerMistake(`GitHub does not make a diff for ${what}: it is too large. Attach the part that should be reviewed.`);
    default:
      return unavailable(`GitHub answered ${response.status}`);
  }
}

export interface FetchOptions {
  base: URL;
  token: Secret | null;
  fetch: GuardedFetch;
  signal: AbortSignal;
}

/**
 * @returns the unified diff.
 * @throws CallerMistake that says what to do: it is for the caller, the tenant's administrator, or a matter of waiting.
 */
export async function fetchPullRequestDiff(pull: PullRequest, { base, token, fetch, signal }: FetchOptions): Promise<string> {
  checkHost(pull, base);
  const headers = new Headers({ accept: "application/vnd.github.diff", "user-agent": "aau-code-review", "x-github-api-version": "2022-11-28" });
  if (token) headers.set("authorization", `Bearer ${token.reveal().trim()}`);
  const limit = AbortSignal.any([signal, timeLimit(TIMEOUT_MS)]);
  let url = new URL(`${base.pathname.replace(/\/+$/, "")}/repos/${pull.owner}/${pull.repo}/pulls/${pull.number}`, base);
  try {
    for (let hop = 0; hop <= MAX_REDIRECTS; hop += 1) {
      const response = await fetch(url, { headers, signal: limit });
      if (response.ok) return await readCapped(response);
      await response.body?.cancel();
      const location = response.headers.get("location");
      if (![301, 302, 307, 308].includes(response.status) || !location) throw refusal(response, pull, token !== null);
      const next = URL.canParse(location, url.href) ? new URL(location, url) : null;
      // A renamed repository redirects within the API. Anywhere else the token has no business.
      if (next?.origin !== base.origin) throw unavailable("GitHub redirected to another host");
      url = next;
    }
    throw unavailable("GitHub redirected too often");
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof CallerMistake) throw error;
    if (error instanceof EgressRefused) throw new CallerMistake("The setting github_api_url leads to an address that may not be called.", { cause: error });
    throw unavailable("GitHub could not be reached", error);
  }
}
