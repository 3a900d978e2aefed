/** Asking a Lipwire server: errors, answers, events, and waiting for them. */

/**
 * What went wrong.
 *
 * - `full`: the server has no room for another session; `retryAfterS` says when to try again
 * - `codec`: the browser does not decode H.264, or has no WebRTC
 * - `ice`: no connection for media within 6 s, mostly because UDP is blocked
 * - `microphone`: the browser gives no microphone; `detail` is the browser's name for the reason
 * - `voice`: the server cannot say texts
 * - `ended`: the session is no longer there
 * - `not_found`: there is no such avatar
 * - `refused`: the server wants a token, or the page's own address
 * - `key`: the server wants an API key or a token, or the one that it got does not count
 * - `unreachable`: the server does not answer
 * - `unavailable`: the server answers that it cannot now
 * - `audio`: the browser cannot decode the file
 * - `other`: anything else; `message` says what
 *
 * @typedef {"full"|"codec"|"ice"|"microphone"|"voice"|"ended"|"not_found"|"refused"|"key"
 *   |"unreachable"|"unavailable"|"audio"|"other"} Kind
 */

/** An error of a session. */
export class LipwireError extends Error {
  /**
   * @param {Kind} kind
   * @param {string} message
   * @param {{status?: number, retryAfterS?: number, detail?: string}} [more]
   */
  constructor(kind, message, more = {}) {
    super(message);
    this.name = "LipwireError";
    /** @type {Kind} */
    this.kind = kind;
    /** The status of the HTTP answer; 0 where there was none. */
    this.status = more.status ?? 0;
    /** @type {number | undefined} Seconds after which another attempt may succeed. */
    this.retryAfterS = more.retryAfterS;
    /** More about the reason, for programs. */
    this.detail = more.detail ?? "";
  }
}

/**
 * The ICE servers that an answer's `Link` header names, as WHEP has them.
 *
 * @param {string | null} header
 * @returns {RTCIceServer[]}
 */
export function iceServers(header) {
  const quoted = '"(?:[^"\\\\]|\\\\.)*"';
  const value = `(?:${quoted}|[^\\s;,"]+)`;
  const links = new RegExp(`<[^>]*>(?:\\s*;\\s*[\\w-]+=${value})*`, "g");
  const parameters = new RegExp(`;\\s*([\\w-]+)=(${value})`, "g");
  const servers = [];
  for (const [link] of header?.matchAll(links) ?? []) {
    /** @type {Record<string, string>} */
    const told = {};
    for (const [, name, given] of link.matchAll(parameters)) {
      told[name] = given.startsWith('"') ? given.slice(1, -1).replace(/\\(.)/g, "$1") : given;
    }
    const { rel, username, credential } = told;
    const urls = link.slice(1, link.indexOf(">"));
    if (rel === "ice-server") servers.push({ urls, username, credential });
  }
  return servers;
}

/**
 * Ask a server, and throw a LipwireError where it refuses or does not answer.
 *
 * @param {URL} url @param {RequestInit} init @param {boolean} ofSession
 * @returns {Promise<Response>}
 */
export async function ask(url, init, ofSession) {
  let answer;
  try {
    answer = await fetch(url, init);
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new LipwireError("unreachable", "the server does not answer");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  const retryAfterS = Number(answer.headers.get("Retry-After")) || undefined;
  /** @type {Record<number, Kind>} */
  const kinds = { 401: "key", 403: "refused", 406: "codec", 429: "full", 501: "voice" };
  kinds[502] = kinds[503] = kinds[504] = "unavailable";
  kinds[404] = ofSession ? "ended" : "not_found";
  throw new LipwireError(
    kinds[answer.status] ?? "other",
    problem.detail ?? `the server answers ${answer.status}`,
    { status: answer.status, retryAfterS },
  );
}

/** @param {Response} answer @returns {AsyncGenerator<any>} the data of its events */
export async function* serverSentEvents(answer) {
  if (!answer.body) return;
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += decoder.decode(value, { stream: true });
    const blocks = text.split("\n\n");
    text = blocks.pop() ?? "";
    for (const block of blocks) {
      const data = block.split("\n").filter((line) => line.startsWith("data: "));
      if (data.length) yield JSON.parse(data.map((line) => line.slice(6)).join("\n"));
    }
  }
}

/**
 * Resolve when `condition` holds, looked at now and at each event `name`, or after `timeoutMs`.
 *
 * @param {EventTarget} target @param {string} name @param {() => boolean} condition
 * @param {number} timeoutMs @returns {Promise<void>}
 */
export function settled(target, name, condition, timeoutMs) {
  return new Promise((resolve) => {
    const look = () => {
      if (!condition()) return;
      done();
    };
    const done = () => {
      clearTimeout(timer);
      target.removeEventListener(name, look);
      resolve();
    };
    const timer = setTimeout(done, timeoutMs);
    target.addEventListener(name, look);
    look();
  });
}

/** Wait. @param {number} ms @param {AbortSignal} [signal] resolves at once when it is aborted */
export function wait(ms, signal) {
  return new Promise((/** @type {(value?: unknown) => void} */ resolve) => {
    if (signal?.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
