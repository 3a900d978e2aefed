/** The talking page: what people do on it, and what it shows them. */

import { Captions } from "./captions.js";
import { explain, explainEnd, explainPictures, explainUnsaid } from "./failures.js";
import { avatars, decodeAudio, LipwireError, LipwireSession } from "./lipwire.js";
import { following, Unsaid } from "./moving.js";

const FIGURES_EVERY_MS = 1000;
const NOTICE_MS = 9000;
const LONGEST_FILE_S = 300;
const KEPT = "lipwire.session";
const KEY = "lipwire.key";
/** Another tab has its own session; with locks a tab knows whether one is another's. */
const kept = navigator.locks ? localStorage : sessionStorage;

const $ = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const watching = new URLSearchParams(location.search).get("session");
const video = /** @type {HTMLVideoElement} */ ($("video"));
const captions = new Captions($("caption"));

/** @type {LipwireSession | null} */
let session = null;
/** @type {ReturnType<typeof setInterval> | undefined} */
let countdown;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let noticeTimer;
let speaking = false;
let unsaid = new Unsaid();
/** Says that the session is no longer this tab's. */
let unlock = () => {};

// -- sessions ------------------------------------------------------------------------------------

/** Connect: to the session that is watched, to this tab's own, or to a new one. */
async function begin() {
  session?.close();
  clearInterval(countdown);
  show("connecting", "Connecting…");
  const made = new LipwireSession();
  session = made;
  unsaid = new Unsaid();
  follow(made);
  made.attach(video);
  try {
    await made.connect(await wanted());
  } catch (error) {
    if (session !== made) return;
    if (!watching && kept.getItem(KEPT) && asError(error).kind === "ended") {
      // The page was loaded again after its session had ended.
      kept.removeItem(KEPT);
      return begin();
    }
    return fail(explain(asError(error)), error);
  }
  if (session !== made) return made.close();
  document.body.dataset.session = made.id;
  if (!watching) keep(made);
  show("live");
  void video.play().catch(() => {});
  $("sound").hidden = false;
}

/** @returns {Promise<import("./lipwire.js").ConnectOptions>} */
async function wanted() {
  const token = key();
  if (watching) return { session: watching, token };
  const names = await avatars({ token });
  const asked = $("avatar").value || new URLSearchParams(location.search).get("avatar");
  if (!names.length) throw new LipwireError("not_found", "the server has no avatars");
  const name = asked && names.includes(asked) ? asked : names[0];
  $("avatar").replaceChildren(...names.map((each) => new Option(each, each, false, each === name)));
  $("avatar").hidden = false;
  const before = await left();
  return before && (!asked || asked === before.avatar) ? { session: before.id, token } : { avatar: name, token };
}

/** What the server asks for: of the address (`#key=...`), or as it was typed in this tab. */
function key() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (given) {
    sessionStorage.setItem(KEY, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEY) ?? undefined;
}

/**
 * Go on with a session on another server, which is found at the same address.
 *
 * @param {LipwireSession} before @param {number} leftS seconds until its server stops
 */
async function move(before, leftS) {
  const media = before.media === "pictures" ? "pictures" : "auto";
  const made = await following(before, leftS, { avatar: before.avatar, token: key(), media });
  if (!made) return;
  await release();
  if (session !== before) return void made.end().catch(() => {});
  session = made;
  follow(made);
  void before.end().catch(() => {});
  made.attach(video);
  document.body.dataset.session = made.id;
  keep(made);
  show("live");
  void video.play().catch(() => {});
  await say(() => unsaid.sayAgain(made));
}

/** The page may be loaded again, and find its session. @param {LipwireSession} made */
function keep({ id, avatar }) {
  kept.setItem(KEPT, JSON.stringify({ id, avatar }));
  unlock();
  void navigator.locks?.request(`${KEPT} ${id}`, () => new Promise((resolve) => (unlock = () => resolve(0))));
}

/** @returns {Promise<{id: string, avatar: string} | null>} a session that nobody has */
async function left() {
  const before = JSON.parse(kept.getItem(KEPT) ?? "null");
  if (!before) return null;
  unlock();
  const { held = [] } = (await navigator.locks?.query()) ?? {};
  return held.some(({ name }) => name === `${KEPT} ${before.id}`) ? null : before;
}

/** @param {LipwireSession} made */
function follow(made) {
  /** @type {(name: string, handle: (detail: any) => void) => void} */
  const on = (name, handle) =>
    made.addEventListener(name, (event) => {
      if (session === made) handle(/** @type {CustomEvent} */ (event).detail);
    });
  on("session", ({ avatar, state }) => {
    $("avatar").value = avatar;
    document.title = `${avatar} · Lipwire`;
    showState(state);
  });
  on("state", ({ state }) => showState(state));
  on("caption", ({ text }) => captions.begin(text));
  on("media", ({ error }) => {
    const { label, text } = explainPictures(asError(error));
    $("media").textContent = label;
    $("media").title = text;
    tell(text);
  });
  on("speech_ended", ({ interrupted }) => {
    captions.end(interrupted);
    if (!held) unsaid.ended(interrupted);
  });
  on("going_away", ({ left_s: leftS }) => {
    if (!watching) return void move(made, leftS);
    tell(`The server is shutting down: this session ends in ${Math.ceil(leftS)} s.`);
  });
  on("reconnecting", ({ attempt, error }) => {
    if (attempt < 3) return show("connecting", "Connection lost. Reconnecting…");
    // It goes on trying.
    fail({ ...explain(asError(error)), action: "Try now", againInS: undefined }, error);
  });
  on("reconnected", () => {
    show("live");
    void video.play().catch(() => {});
  });
  on("ended", ({ reason }) => {
    kept.removeItem(KEPT);
    fail(explainEnd(reason));
  });
  on("failed", ({ error }) => fail(explain(asError(error)), error));
}

// -- what is shown -------------------------------------------------------------------------------

/** @param {"connecting"|"live"|"failed"} phase @param {string} [text] */
function show(phase, text = "") {
  const live = phase === "live";
  document.body.dataset.phase = phase;
  $("waiting").hidden = phase !== "connecting";
  $("waiting-text").textContent = text;
  if (phase !== "failed") $("failure").hidden = true;
  for (const id of ["microphone", "text", "open", "send", "share"]) $(id).disabled = !live;
  $("media").hidden = !live || session?.media !== "pictures";
  if (!live) captions.clear();
  showState(live ? (session?.state ?? "idle") : phase);
}

/** @param {string} state */
function showState(state) {
  const words = /** @type {Record<string, string>} */ ({
    connecting: "Connecting",
    failed: "Not connected",
    idle: "Ready",
    listening: "Listening",
    speaking: "Speaking",
    interrupted: "Interrupted",
  });
  speaking = state === "speaking";
  document.body.dataset.state = state;
  $("state").textContent = words[state] ?? state;
  $("interrupt").hidden = !speaking || Boolean(watching);
}

/** @param {import("./failures.js").Explained} why @param {unknown} [error] */
function fail(why, error) {
  show("failed");
  $("failure").hidden = false;
  $("failure-title").textContent = why.title;
  $("failure-text").textContent = why.text;
  const asksKey = error instanceof LipwireError && error.kind === "key";
  const told = error instanceof Error && !(asksKey && !sessionStorage.getItem(KEY));
  $("failure-detail").textContent = told ? error.message : "";
  $("failure-key").hidden = !asksKey;
  if (!$("failure-key").hidden) $("failure-key").focus();
  $("failure-action").textContent = watching && why.action === "Talk again" ? "Talk yourself" : why.action;
  clearInterval(countdown);
  if (why.againInS === undefined) return;
  let leftS = Math.ceil(why.againInS);
  const count = () => {
    if (leftS <= 0) return void begin();
    $("failure-action").textContent = `${why.action} (${leftS--} s)`;
  };
  count();
  countdown = setInterval(count, 1000);
}

/** Say something in one line, for some seconds. @param {string} text */
function tell(text) {
  clearTimeout(noticeTimer);
  $("notice").textContent = text;
  $("notice").hidden = !text;
  noticeTimer = setTimeout(() => ($("notice").hidden = true), NOTICE_MS);
}

async function showFigures() {
  const figures = document.body.dataset.phase === "live" ? await session?.statistics() : null;
  const put = (/** @type {string} */ id, /** @type {string} */ text) => ($(id).textContent = text);
  put("fps", figures ? figures.fps.toFixed(0) : "–");
  put("latency", figures ? `${figures.latencyMs.toFixed(0)} ms` : "–");
  put("dropped", figures ? String(figures.framesDropped) : "–");
  put("rate", figures ? `${(figures.bitsASecond / 1e6).toFixed(1)} Mbit/s` : "–");
  if (figures) {
    $("figures").title =
      `${figures.width} × ${figures.height}, jitter ${figures.jitterMs.toFixed(0)} ms,` +
      ` ${figures.packetsLost} packets lost`;
  }
}

// -- what people do ------------------------------------------------------------------------------

/** @param {() => Promise<unknown>} act @returns {Promise<boolean>} whether it was done */
async function say(act) {
  try {
    await act();
    return true;
  } catch (error) {
    tell(explainUnsaid(asError(error)));
    return false;
  }
}

/** @param {LipwireSession} made @param {import("./moving.js").Say} act */
async function give(made, act) {
  const takeBack = unsaid.give(act);
  // Where it is moved meanwhile, it is said elsewhere.
  const given = await say(() => act(made).catch((error) => session !== made || Promise.reject(error)));
  if (!given) takeBack();
  return given;
}

async function sayText() {
  const text = $("text").value.trim();
  if (!text || !session) return;
  $("text").value = "";
  grow();
  const made = session;
  if (!(await give(made, (each) => each.speak(text))) && !$("text").value) {
    $("text").value = text;
    grow();
  }
}

/** @param {File | undefined} file */
async function sayFile(file) {
  if (!file || !session) return;
  const made = session;
  tell(`${file.name} is on its way.`);
  /** @type {Blob | null} */
  let sound = null;
  const decoded = await say(async () => {
    const pcm = await decodeAudio(file);
    const seconds = pcm.length / 48_000;
    if (seconds > LONGEST_FILE_S) {
      throw new LipwireError("other", `the recording has ${Math.round(seconds)} s; allowed are ${LONGEST_FILE_S}`);
    }
    sound = new Blob([pcm], { type: "audio/pcm" });
  });
  if (!decoded || !sound) return;
  const pcm = sound;
  if (await give(session ?? made, (each) => each.speak(pcm, { rateHz: 48_000 }))) tell("");
}

/** Make the field as high as its text, where the style sheet cannot. */
function grow() {
  if (CSS.supports("field-sizing", "content")) return;
  const { style } = $("text");
  style.height = "auto";
  style.height = `${$("text").scrollHeight}px`;
}

let held = false;

async function hold() {
  if (held || !session) return;
  held = true;
  const made = session;
  const ready = await say(() => made.startMicrophone());
  $("microphone").setAttribute("aria-pressed", String(ready && held));
  if (ready && !held) {
    // Released while the browser asked for leave.
    await made.stopMicrophone();
    tell("The microphone is ready. Hold the button while you speak.");
  }
  if (!ready) held = false;
}

async function release() {
  if (!held) return;
  held = false;
  $("microphone").setAttribute("aria-pressed", "false");
  const made = session;
  if (made) await say(() => made.stopMicrophone());
}

function interrupt() {
  const made = session;
  if (made && speaking) void say(() => made.interrupt());
}

/** @param {boolean} on */
function sound(on) {
  video.muted = !on;
  document.body.classList.add("heard");
  $("sound").setAttribute("aria-pressed", String(on));
  $("sound-icon").setAttribute("href", on ? "#i-sound" : "#i-muted");
  $("sound-label").textContent = on ? "Sound on" : "Sound off";
  void video.play().catch(() => {});
}

async function share() {
  if (!session) return;
  const url = new URL(location.pathname, location.href);
  url.searchParams.set("session", session.id);
  try {
    await navigator.clipboard.writeText(url.href);
    const label = $("share-label");
    const before = [...label.childNodes];
    label.replaceChildren("Copied");
    setTimeout(() => label.replaceChildren(...before), 2000);
  } catch {
    tell(url.href);
  }
}

/** @param {unknown} error */
function asError(error) {
  return error instanceof LipwireError ? error : new LipwireError("other", String(error));
}

// -- events of the page --------------------------------------------------------------------------

$("composer").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  void sayText();
});
$("text").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  void sayText();
});
$("text").addEventListener("input", grow);
$("interrupt").addEventListener("click", interrupt);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") interrupt();
});

const microphone = $("microphone");
microphone.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
  if (event.button !== 0 || microphone.disabled) return;
  microphone.setPointerCapture(event.pointerId);
  void hold();
});
for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) {
  microphone.addEventListener(name, () => void release());
}
microphone.addEventListener("contextmenu", (/** @type {Event} */ event) => event.preventDefault());
microphone.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  if (event.key !== " " && event.key !== "Enter") return;
  event.preventDefault();
  if (!event.repeat) void hold();
});
microphone.addEventListener("keyup", (/** @type {KeyboardEvent} */ event) => {
  if (event.key === " " || event.key === "Enter") void release();
});
microphone.addEventListener("click", (/** @type {PointerEvent} */ event) => {
  // Without a pointer and without keys: from assistive technology, which cannot hold.
  if (event.detail === 0 && !event.pointerType) void (held ? release() : hold());
});

$("open").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  void sayFile($("file").files[0]);
  $("file").value = "";
});
const hasFiles = (/** @type {DragEvent} */ event) =>
  !watching && document.body.dataset.phase === "live" && event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").hidden = !hasFiles(event);
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) $("drop").hidden = true;
});
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").hidden = true;
  if (hasFiles(event)) void sayFile(event.dataTransfer?.files[0]);
});

$("sound").addEventListener("click", (/** @type {Event} */ event) => {
  event.stopPropagation();
  sound(video.muted);
});
for (const name of ["pointerup", "keydown"]) {
  // Browsers allow sound once the visitor has touched the page.
  addEventListener(name, function first(event) {
    if (event.target instanceof Element && event.target.closest("#sound")) return;
    if (event instanceof KeyboardEvent && ["Tab", "Escape", "Shift"].includes(event.key)) return;
    removeEventListener(name, first);
    if (!document.body.classList.contains("heard")) sound(true);
  });
}

$("share").addEventListener("click", () => void share());
$("avatar").addEventListener("change", async () => {
  const before = session;
  session = null;
  kept.removeItem(KEPT);
  show("connecting", "Connecting…");
  await before?.end().catch(() => {});
  await begin();
});
$("failure-key").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  if (event.key === "Enter") $("failure-action").click();
});
$("failure-action").addEventListener("click", () => {
  if (!$("failure-key").hidden && $("failure-key").value) {
    sessionStorage.setItem(KEY, $("failure-key").value.trim());
    $("failure-key").value = "";
  }
  if (watching && $("failure-action").textContent === "Talk yourself") location.href = location.pathname;
  else void begin();
});
video.addEventListener("resize", () => {
  if (!video.videoWidth) return;
  const ratio = video.videoWidth / video.videoHeight;
  document.documentElement.style.setProperty("--ratio", ratio.toFixed(4));
});
addEventListener("pageshow", (event) => {
  if (event.persisted) void begin(); // kept by the browser, its session was left
});

if (watching) {
  $("composer").hidden = true;
  $("watching").hidden = false;
}
setInterval(() => void showFigures().catch(() => {}), FIGURES_EVERY_MS);
void begin();
